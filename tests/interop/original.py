"""A state dict as the original code names and shapes it, written down apart from `interop.nvlabs` to hold that to."""

import re

import numpy as np

# The port's name -> the original's, all that apply, in order.
RENAMED = (
    (r"^vision_model\.embeddings\.position_embeddings$", "img_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embeddings\.projection", "img_encoder.patch_embed.proj"),
    (r"^vision_model\.embeddings\.layernorm", "img_encoder.patch_embed.norm"),
    (r"^vision_model\.layernorm", "img_encoder.norm"),
    (r"^vision_model\.encoder\.stages\.(\d+)\.layers\.", r"img_encoder.layers.\1.blocks."),
    (r"^vision_model\.encoder\.stages\.", "img_encoder.layers."),
    (r"^(img_encoder.*pre_assign_attn\.attn)\.out_proj", r"\1.proj"),
    (r"^(img_encoder.*blocks.*)\.self_attn\.out_proj", r"\1.attn.proj"),
    (r"^(img_encoder.*blocks.*)\.layer_norm", r"\1.norm"),
    (r"^text_model\.embeddings\.token_embedding", "text_encoder.token_embedding"),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text_encoder.positional_embedding"),
    (r"^text_model\.final_layer_norm", "text_encoder.ln_final"),
    (r"^text_model\.encoder\.layers", "text_encoder.transformer.resblocks"),
    (r"^(text_encoder.*)\.self_attn\.out_proj", r"\1.attn.out_proj"),
    (r"^(text_encoder.*)\.layer_norm", r"\1.ln_"),
    (r"^(text_encoder.*mlp)\.fc1", r"\1.c_fc"),
    (r"^(text_encoder.*mlp)\.fc2", r"\1.c_proj"),
    (r"^visual_projection\.3", "img_projector.linear_out"),
    (r"^visual_projection", "img_projector.linear_hidden"),
    (r"^text_projection\.3", "text_projector.linear_out"),
    (r"^text_projection", "text_projector.linear_hidden"),
)


def state_dict(port: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`port`: the state dict of the port in `transformers`."""
    out = {}
    for name, x in port.items():
        if " self_attn.k" in (spaced := name.replace(".self_attn", " self_attn")) or " self_attn.v" in spaced:
            continue
        if " self_attn.q" in spaced:
            before, kind = name.split(".self_attn.q_proj.")
            x = np.concatenate([port[f"{before}.self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v")])
            name = f"{before}.attn.in_proj_{kind}" if name.startswith("text") else f"{before}.attn.qkv.{kind}"
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if re.search(r"_projector\.(linear_hidden\.0|linear_out)\.weight$", name):
            x = x[:, :, None]
        out[name] = x
    return out
