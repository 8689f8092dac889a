"""Every field of a run, with its unit and source. A recipe is a small file beside this one: what differs.

The values are those of the published two-stage recipe on a global batch of 4096 (Xu et al., GroupViT, CVPR 2022,
section 4.1, and the released models), except where a comment says otherwise. Override any of them on the command line:
`groupvit train --config=configs/scenes.py --config.data.batch=64`.
"""

from ml_collections import ConfigDict


def train_set(name: str, path: str, source: str = "tar", weight: float = 0.0) -> ConfigDict:
    """One named set of image-text pairs; weight 0 in all sets means "as many draws as it has pairs"."""
    return ConfigDict({"name": name, "source": source, "path": path, "weight": weight})


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of the initial weights, the order of the data and every random draw
    config.seeds = ()  # (0, 1, 2): a run of each, in WORKDIR/seed-0 and so on, and a table of all; (): `seed` alone

    config.init_from = ConfigDict()  # weights to start from, with a fresh optimizer; --config.init_from=P sets the path
    config.init_from.path = ""  # whatever --checkpoint takes: a run, an imported model, a Hugging Face folder, a .pth
    config.init_from.parts = ("image", "text", "image_projector", "text_projector", "scales")  # what of it to take

    config.model = ConfigDict()
    config.model.dtype = "bfloat16"  # of matrix products; parameters, norms, softmax and losses stay float32

    config.model.image = image = ConfigDict()
    image.image_size = 224  # pixels, training crop
    image.patch_size = 16  # pixels
    image.width = 384  # channels (ViT-S)
    image.heads = 6
    image.mlp_ratio = 4.0
    image.depths = (6, 3, 3)  # blocks of each stage
    image.group_tokens = (64, 8, 0)  # learned tokens of each stage; 0: the stage does not group
    image.output_groups = (64, 8, 0)  # segments each stage hands on
    image.drop_path = 0.1  # rate of the last block, rising linearly from 0
    image.init_std = 0.02  # of linear maps at width 384; other widths take init_std * sqrt(384 / width)
    image.group_token_std = 0.02
    image.position_std = 0.02  # of the position embedding, which is added to patches of deviation 1
    image.assignment_gain = 1.0  # factor on the assignment's logits: ours, for narrow models
    image.residual_gain = 1.0  # factor on the group tokens where they join what they were assigned: ours, likewise

    config.model.text = text = ConfigDict()
    text.vocabulary = 49408  # CLIP's byte-pair vocabulary
    text.length = 77  # tokens, start and end included
    text.width = 256
    text.heads = 4
    text.depth = 12

    config.model.projector = ConfigDict({"hidden": 4096, "features": 256})

    config.data = data = ConfigDict()
    data.train = [train_set("gcc3m", "")]  # tar, array_record: file, folder, glob or braces, local or URL; tfds: folder
    data.batch = 4096  # pairs a step, over all devices
    data.group = 8  # pictures made and packed together; batch / group must be a multiple of the devices
    data.decode = "scaled"  # JPEGs at the smallest DCT scale that a crop allows; "full": at their own size, slower
    data.prompts = 3  # K prompts per image for the multi-label loss; 0 switches the loss off
    data.templates = ()  # of the prompts, each with one {}; empty: CLIP's 80 ImageNet templates
    data.tagger = "auto"  # auto, nltk or pattern: what finds the words for prompts
    data.packing = True  # texts one behind the other in rows; False: each padded to model.text.length
    data.pack_length = 128  # tokens a row
    data.caption_tokens = 16.0  # room for a caption, on average, start and end included; `groupvit data inspect` says
    data.prompt_tokens = 10.0  # and for a prompt
    data.max_bad = 0.05  # share of unusable samples, above which a run stops
    data.threads = 4  # reading and decoding threads of a process, when workers is 0
    data.workers = 0  # reading and decoding processes of a host; 0: threads only
    data.worker_restarts = 3  # how often workers that died are replaced, before the run stops
    data.prefetch = 2  # batches made ahead
    data.cache = 1024  # MB of remote shards that each process keeps in memory

    config.augment = augment = ConfigDict()  # timm's recipe for DeiT
    augment.crop_area = (0.08, 1.0)  # share of the picture that a crop keeps; (1.0, 1.0): plain resize
    augment.crop_aspect = (3 / 4, 4 / 3)
    augment.randaugment = 9.0  # magnitude of rand-m9-mstd0.5-inc1; 0: off
    augment.flip = 0.5  # probability
    augment.erase = 0.25  # probability

    config.optim = optim = ConfigDict()  # AdamW
    optim.lr = 1.6e-3  # peak, for a batch of lr_batch; scales linearly with the batch
    optim.lr_start = 4e-6  # where the warm-up begins, likewise
    optim.lr_end = 4e-5  # where the cosine ends, likewise
    optim.lr_batch = 4096
    optim.b1 = 0.9
    optim.b2 = 0.999
    optim.eps = 1e-8
    optim.weight_decay = 0.05
    optim.clip_norm = 5.0  # of the global gradient

    config.train = train = ConfigDict()
    train.epochs = 30.0
    train.steps = 0  # > 0: this many steps, whatever epochs says
    train.warmup_epochs = 2.0
    train.warmup_steps = 0  # > 0: this many, whatever warmup_epochs says
    train.microbatches = 1  # parts of a batch whose activations are in memory in turn; changes memory and time only
    train.remat = "none"  # or what a block's gradient keeps: "dots" its linear maps' results, "full" only its input
    train.scan = False  # compile one block of the text tower and run it for all, to shorten compiling
    train.log_every = 50  # steps
    train.hang_timeout = 600.0  # seconds without any progress, on this host or another, after which a run stops
    train.skip_limit = 5  # steps in a row with a loss or gradient that is no number, before going back to a checkpoint
    train.collapse = "warn"  # off, warn or stop when all pictures look alike to the model, or one group takes all
    train.wandb = ""  # project of Weights & Biases that gets the metrics, too: pip install -e ".[wandb]"
    train.profile = ()  # (first, last) step of a trace for XProf or TensorBoard in WORKDIR/profile; (): none

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000  # steps
    config.checkpoint.minutes = 0.0  # > 0: also at the first row of the log so long after the last one
    config.checkpoint.keep = 3  # the newest so many
    config.checkpoint.keep_every = 0  # > 0: those of every so many steps stay, too
    config.checkpoint.best = ()  # scores, as ("voc/mIoU",): the checkpoint that is best by each is kept, too

    config.eval = ev = ConfigDict()
    ev.every = 0  # steps between evaluations in training; 0: none
    ev.tasks = ("voc",)
    ev.data_root = ""  # folder with VOCdevkit/, coco/, imagenet/...
    ev.size = 448  # pixels, the short side of a picture
    ev.long = 2048  # pixels, at most so long
    ev.window = 448  # pixels, side of a sliding window
    ev.stride = 224  # pixels between windows
    ev.batch = 0  # windows of a device that the towers see together; 0: what suits it

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})  # devices along each axis; -1: the rest
    config.mesh.zero1 = False  # True: each device of `data` keeps a part of the optimizer's moments (ZeRO-1), not all
    return config
