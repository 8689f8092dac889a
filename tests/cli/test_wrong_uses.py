"""What people do wrong, and all that they are told: one line from which a newcomer knows what to do next."""

import os
import pathlib

import pytest
import tiny_run
from PIL import Image

from groupvit_jax.drawn import scenes

REPOSITORY = pathlib.Path(__file__).parents[2]
SCENES = "--config=configs/scenes.py"


def train(*wrong):
    """A command that would train, but for what is wrong."""
    tiny = [f"--config.{name}={value}" for name, value in tiny_run.OVERRIDES.items()]
    data = ["--config.data.train[0].path=scenes/train-*.tar", "--config.data.batch=8", "--config.data.group=1",
            "--config.eval.data_root=scenes"]
    return ("train", SCENES, "--workdir=new", *data, *tiny, *wrong)


def segment(*wrong):
    return ("segment", "--checkpoint=run", "--images=photos/*.jpg", "--classes=cat,dog", "--output=new", *wrong)


def evaluate(*wrong):
    return ("eval", "--checkpoint=run", "--data_root=scenes", *wrong)


# What was typed, and what `groupvit: ` is followed by. Read it from top to bottom after changing a message.
USES = [
    # the verb
    ((),
     "usage: groupvit VERB --flags; groupvit --help lists the commands"),
    (("trian", SCENES),
     "unknown command 'trian': did you mean train? groupvit --help lists the commands, groupvit VERB "
     "--help the flags of one"),
    (("evaluate", "--checkpoint=run"),
     "unknown command 'evaluate': did you mean eval? groupvit --help lists the commands, groupvit VERB "
     "--help the flags of one"),
    (("predict",),
     "unknown command 'predict': there are train, compile, eval, segment, demo, import, export, data scenes, "
     "data fashion, data index, data inspect, data convert, completion; groupvit --help lists the "
     "commands, groupvit VERB --help the flags of one"),
    (("scenes", "--output=new"),
     "unknown command 'scenes': did you mean data scenes? groupvit --help lists the commands, groupvit "
     "VERB --help the flags of one"),
    (("data", "scene", "--output=new"),
     "unknown command 'data scene': did you mean data scenes? groupvit data --help lists the commands, "
     "groupvit VERB --help the flags of one"),
    (("data", "download"),
     "unknown command 'data download': there are data scenes, data fashion, data index, data inspect, data"
     " convert; groupvit data --help lists the commands, groupvit VERB --help the flags of one"),
    ((SCENES, "train"),
     "'--config=configs/scenes.py' is no command, but comes after one; usage: groupvit VERB --flags, as in"
     " groupvit train --config=configs/scenes.py --workdir=runs/first; groupvit --help lists the commands"),
    # flags
    (("train",),
     "train needs --config=FILE and --workdir=DIR, as in groupvit train --config=configs/scenes.py "
     "--workdir=runs/first"),
    (("train", "configs/scenes.py", "runs/first"),
     "train takes no argument 'configs/scenes.py': write --config=FILE --workdir=DIR"),
    (("train", "--conifg=configs/scenes.py"),
     "train has no flag 'conifg'. Did you mean: config? `groupvit train --help` lists the flags"),
    (("train", SCENES, "--workdir"),
     "--workdir has no value: write --workdir=VALUE; `groupvit train --help` lists the flags"),
    (("train", SCENES, "--workdir="),
     "train needs --config=FILE and --workdir=DIR, as in groupvit train --config=configs/scenes.py "
     "--workdir=runs/first"),
    (("train", SCENES, "--dry-run"),
     "train has no flag 'dry-run'. Did you mean: dry_run? `groupvit train --help` lists the flags"),
    (("train", SCENES, "--workdir=new", "--batch=64"),
     "train has no flag 'batch'; a field of the configuration is set by --config.data.batch or "
     "--config.eval.batch"),
    (("train", SCENES, "--workdir=new", "--resume=yes"),
     "--resume=yes: choose one of auto|force; `groupvit train --help` lists the flags"),
    (train("--images_per_second=5"),
     "--images_per_second says what --dry_run reckons with: give --dry_run, too"),
    (train("--process=1"),
     "--process says how several processes find each other: give --multihost, too"),
    (train("--multihost", "--coordinator=localhost"),
     "--coordinator=localhost: give HOST:PORT of process 0"),
    # the configuration
    (("train", "--config=configs/scene.py", "--workdir=new"),
     "--config=configs/scene.py: no such file; did you mean configs/scenes.py?"),
    (("train", "--config=configs/scenes", "--workdir=new"),
     "--config=configs/scenes: no such file; did you mean configs/scenes.py?"),
    (("train", "--config=scenes.py", "--workdir=new"),
     "--config=scenes.py: no such file; did you mean configs/scenes.py?"),
    (("train", "--config=voc.py", "--workdir=new"),
     "--config=voc.py: no such file; configs/ has base.py, cc12m_30e.py, fashion.py, gcc_redcaps_30e.py, "
     "gcc_yfcc_30e.py, scenes.py: take one, as configs/scenes.py"),
    (("train", "--config=mine.yaml", "--workdir=new"),
     "--config=mine.yaml: a configuration is a file of Python, as configs/scenes.py; copy that one and set"
     " its fields"),
    (("train", "--config=words.txt", "--workdir=new"),
     "--config=words.txt: a configuration is a file of Python, as configs/scenes.py; copy that one and set"
     " its fields"),
    (train("--config.data.bach=64"),
     "--config.data.bach=64: the configuration has no such field; did you mean --config.data.batch or "
     "--config.data.cache? configs/base.py lists all"),
    (train("--config.lr=1e-3"),
     "--config.lr=1e-3: the configuration has no such field; did you mean --config.optim.lr? "
     "configs/base.py lists all"),
    (train("--config.optim.learning_rate=1e-3"),
     "--config.optim.learning_rate=1e-3: the configuration has no such field; did you mean "
     "--config.optim.lr_batch or --config.optim.lr_end? configs/base.py lists all"),
    (train("--config.data.batch"),
     "--config.data.batch has no value: write --config.data.batch=VALUE; configs/base.py shows what kind "
     "of value each field has"),
    (train("--config.data.batch=many"),
     "--config.data.batch=many: give a whole number; configs/base.py shows what kind of value each field "
     "has"),
    (train("--config.optim.lr=fast"),
     "--config.optim.lr=fast: give a number; configs/base.py shows what kind of value each field has"),
    (train("--config.data.packing=maybe"),
     "--config.data.packing=maybe: give True or False; configs/base.py shows what kind of value each field"
     " has"),
    (train("--config.data.train=scenes"),
     "--config.data.train=scenes: a list of sections is not given as a whole; set its parts, as "
     "--config.data.train[0].path=P, or write a configuration file"),
    (train("--config.data=small"),
     "--config.data is a section, not given as a whole: set its fields, as "
     "--config.data.train[0].path=VALUE"),
    (train("--config.model.dtype=float61"),
     "config.model.dtype is 'float61': use 'float32' or 'bfloat16'"),
    (train("--config.model.image.heads=3"),
     "config.model.image.width=16 is not a multiple of heads=3: change one of them"),
    (train("--config.model.image.image_size=100"),
     "config.model.image.image_size=100 is not a multiple of patch_size=8: change one of them"),
    (train("--config.seeds=(0,0)"),
     "config.seeds=(0, 0): give different whole numbers from 0, as (0,1,2)"),
    (train("--config.init_from=nowhere"),
     "config.init_from: nowhere: no checkpoint there; give the --workdir of a training run (a folder with "
     "checkpoints/STEP in it), a Hugging Face folder, a .safetensors or a .pth"),
    # the machine
    (train("--config.data.batch=12"),
     "config.data.batch=12 is not divisible by the 8 devices it is split over (mesh data x fsdp): take a "
     "multiple of 8"),
    (train("--config.mesh.tensor=16"),
     "config.mesh {'data': -1, 'fsdp': 1, 'tensor': 16} does not fit 8 device(s): its sizes must multiply "
     "to 8 (one of them may be -1 for the rest)"),
    (train("--workdir=words.txt"),
     "cannot write to --workdir=words.txt (File exists): choose another"),
    (train("--workdir=run"),
     "--workdir=run holds a run that computes something else (config.data.batch 8 here, 128 in the run; "
     "config.data.group 1 here, 8 in the run): choose another --workdir, give the run's own configuration,"
     " or go on with this one by --resume=force"),
    # the data
    (("train", SCENES, "--workdir=new"),
     "no tar at runs/scenes/train-*.tar: `groupvit data scenes --output=runs/scenes` makes them, or set "
     "--config.data.train[0].path to where they are"),
    (("train", "--config=configs/base.py", "--workdir=new"),
     "config.data.train: set 'gcc3m' has no path: give it, as "
     '--config.data.train[0].path="data/*.tar"'),
    (train("--config.data.train[0].path=nowhere/{00..01}.tar"),
     "no tar at nowhere/00.tar: give one, a folder of them, a glob or a range as {00000..00331}"),
    (train("--config.data.train[0].path=photos"),
     "no .tar in photos: name a folder that holds .tar files"),
    (train("--config.data.train[0].source=zip"),
     "config.data.train: set 'scenes' has source 'zip'; use one of tar, array_record, tfds"),
    (train("--config.eval.tasks=('vok',)"),
     "no task 'vok': choose among voc, voc20, context, context59, coco_object, coco_stuff, cityscapes, "
     "ade20k, imagenet, scenes, fashion"),
    (train("--config.eval.data_root=nowhere"),
     "scenes: no folder nowhere: give the one that the data sets lie in, or make them with "
     "`groupvit data scenes --output=nowhere`, or a TFDS copy in DATA_ROOT/scenes"),
    (("data", "scenes"),
     "usage: groupvit data scenes --output=DIR [--train=N --val=M --seed=S --size=PIXELS]"),
    (("data", "scenes", "--output=new", "--train=many"),
     "--train=many: give a whole number; `groupvit data scenes --help` lists the flags"),
    (("data", "scenes", "--output=new", "--train=-1"),
     "scenes need train, val, seed >= 0, size >= 16 and shard_size >= 1, not train=-1, val=500, seed=0, "
     "size=96, shard_size=1000"),
    (("data", "scenes", "--output=words.txt"),
     "cannot write scenes to words.txt (File exists): free some space there or choose another folder, then"
     " run again"),
    (("data", "fashion", "--output=new", "--source=nowhere"),
     "no train-images-idx3-ubyte nor train-images-idx3-ubyte.gz in nowhere: `apt install "
     "dataset-fashion-mnist` puts the four files in /usr/share/datasets/fashion-mnist (also at "
     "https://github.com/zalandoresearch/fashion-mnist); give their folder as --source"),
    (("data", "index", "scenes/train-00000.tar"),
     "usage: groupvit data index --data=PATTERN [--data=PATTERN ...] [--prompts --tagger=T]"),
    (("data", "index", "--data=photos"),
     "no .tar in photos: name a folder that holds .tar files"),
    (("data", "inspect"),
     "usage: groupvit data inspect --config=FILE [--samples=1000 --output=DIR]"),
    (("data", "convert", "--dataset=vocc", "--data=scenes", "--output=new"),
     "no segmentation set 'vocc': choose among voc, voc20, context, context59, coco_object, coco_stuff, "
     "cityscapes, ade20k, scenes, fashion"),
    # scores
    (("eval", "run"),
     "usage: groupvit eval --checkpoint=WORKDIR [--tasks=voc --data_root=DIR --output=F.json]"),
    (evaluate("--checkpoint=nowhere"),
     "--checkpoint=nowhere: no checkpoint there; give the --workdir of a training run (a folder with "
     "checkpoints/STEP in it), a Hugging Face folder, a .safetensors or a .pth"),
    (evaluate("--checkpoint=photos"),
     "--checkpoint=photos: no checkpoint there; give the --workdir of a training run (a folder with "
     "checkpoints/STEP in it), a Hugging Face folder, a .safetensors or a .pth"),
    (evaluate("--checkpoint=scenes/train-00000.tar"),
     "scenes/train-00000.tar is a tar and no model, unless of PyTorch before 0.2: then load it in PyTorch "
     "and torch.save its state_dict()"),
    (evaluate("--checkpoint=failed"),
     "--checkpoint=failed: the --workdir of a training run that has saved no checkpoint yet: start it "
     "again, or set --config.checkpoint.every to fewer steps"),
    (evaluate("--checkpoint=run/checkpoints/8"),
     "--checkpoint=run/checkpoints/8: there is no such step; there are 7"),
    (evaluate("--tasks=pascal"),
     "no task 'pascal': choose among voc, voc20, context, context59, coco_object, coco_stuff, cityscapes, "
     "ade20k, imagenet, scenes, fashion"),
    (evaluate("--tasks=voc"),
     "voc: no scenes/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt nor "
     "scenes/VOC2012/ImageSets/Segmentation/val.txt; unpack VOCtrainval_11-May-2012.tar from "
     "http://host.robots.ox.ac.uk/pascal/VOC/voc2012 in DATA_ROOT, or a TFDS copy in DATA_ROOT/voc"),
    (evaluate("--data_root=nowhere"),
     "scenes: no folder nowhere: give the one that the data sets lie in, or make them with "
     "`groupvit data scenes --output=nowhere`, or a TFDS copy in DATA_ROOT/scenes"),
    (evaluate("--protocol=clip"),
     "--protocol=clip: choose one of groupvit|tcl; `groupvit eval --help` lists the flags"),
    (evaluate("--batch=0"),
     "--batch=0: give 1 or more; `groupvit eval --help` lists the flags"),
    (evaluate("--scales=big"),
     "--scales=big: give factors from 1 up, as 1,1.25,1.5"),
    (evaluate("--class_file=nowhere.txt"),
     "cannot read nowhere.txt ([Errno 2] No such file or directory: 'nowhere.txt'): give a text file, one "
     "line each"),
    (evaluate("--output=nowhere/scores.json"),
     "--output=nowhere/scores.json: its folder does not exist; make it first"),
    (evaluate("--output=photos"),
     "--output=photos is a folder; name a file, as photos/scores.json"),
    # one's own pictures
    (("segment", "photos/a.jpg"),
     'usage: groupvit segment --checkpoint=DIR --images="*.jpg" --classes="cat,sofa" --output=DIR'),
    (segment("--images=photos/*.png"),
     "--images=photos/*.png matches no file: quote the glob and check the folder"),
    (segment("--images=photos"),
     "--images=photos is a folder, which matches no file: say which of its pictures, in quotes, as "
     '--images="photos/*.jpg"'),
    (segment("--images=photos/a.jpg", "photos/b.jpg"),
     "segment takes no argument 'photos/b.jpg': quote the glob, as --images=\"photos/*.jpg\""),
    (segment("--images=words.txt"),
     "cannot read words.txt as an image (cannot identify image file 'words.txt'): replace it or narrow "
     "--images"),
    (segment("--images=broken.jpg"),
     "cannot read broken.jpg as an image (cannot identify image file 'broken.jpg'): replace it or narrow "
     "--images"),
    (segment("--classes=cat,,dog"),
     "segment needs at least one class name, none of them empty, as in 'cat,sofa'"),
    (segment("--classes=words.txt"),
     '--classes=words.txt is a file: give the words, as --classes="cat,sofa"; of a file with one a line '
     'they are --classes="$(paste -sd, words.txt)"'),
    (segment("--classes=cat dog"),
     "--classes='cat dog' is one class, and every pixel would be it: divide several by commas, as "
     "'cat,dog', or add --background"),
    (segment("--class=cat"),
     "segment has no flag 'class'. Did you mean: classes? `groupvit segment --help` lists the flags"),
    (segment("--views=overlay"),
     "--views has 'overlay': choose among "
     "input,pred,input_pred,input_pred_label,first_group,final_group,all_groups,labels,areas"),
    (segment("--background=2"),
     "--background=2: give a threshold between 0 and 1, or none for the protocol's, or words; `groupvit "
     "segment --help` lists the flags"),
    (segment("--threshold=0.5"),
     "segment has no flag 'threshold'; `groupvit segment --help` lists the flags"),
    (segment("--checkpoint=failed"),
     "--checkpoint=failed: the --workdir of a training run that has saved no checkpoint yet: start it "
     "again, or set --config.checkpoint.every to fewer steps"),
    (segment("--output=words.txt"),
     "--output=words.txt is a file: choose another place, a folder to write pictures to"),
    # weights, and pods
    (("import", "--source=nowhere", "--output=new"),
     "nowhere holds no weights: give a Hugging Face folder, a .safetensors, a .pth or .bin file of a "
     "GroupViT"),
    (("import", "--source=words.txt", "--output=new"),
     "words.txt is not a PyTorch checkpoint: name the .pth or .pt file that torch.save wrote, or download "
     "it again"),
    (("import", "--source=words.txt", "--output=photos"),
     "--output=photos is there already: name another place, or remove it first"),
    (("import", "--source=words.txt", "--output=new", "--heads=6"),
     "--heads=6: give two numbers, of the image and of the text tower, as 6,4"),
    (("export", "--checkpoint=run", "--output=new"),
     "usage: groupvit export --checkpoint=DIR --format=hf|nvlabs|stablehlo|onnx --output=DIR"),
    (("export", "--checkpoint=run", "--format=torch", "--output=new"),
     "--format=torch: choose one of hf|nvlabs|stablehlo|onnx; `groupvit export --help` lists the flags"),
    (("export", "--checkpoint=run", "--format=hf", "--output=photos"),
     "--output=photos is there already: name another place, or remove it first"),
    (("export", "--checkpoint=run", "--format=nvlabs", "--output=new"),
     "--output=new: --format=nvlabs writes one file; name it, as weights.pth"),
    (("compile", SCENES, "--topology=v5e-64"),
     "--topology=v5e-64 is no slice: give a generation (v2, v3, v4, v5e, v5p, v6e, tpu7x) and the chips "
     "along each side of a slice, as one of v5e:8x8, v5e:16x16, v4:2x2x4, v5p:2x2x4, v6e:4x8"),
    (("compile", SCENES, "--topology=v5e:8x8", "--output=step"),
     "--output=step: name a file that ends in .json"),
    (("completion", "tcsh"),
     "usage: groupvit completion bash|zsh|fish, as in eval \"$(groupvit completion bash)\""),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as one works in: configs/, a run, one that saved nothing, scenes, photographs, other files."""
    root = tmp_path_factory.mktemp("place")
    (root / "configs").symlink_to(REPOSITORY / "configs")
    scenes.write(root / "scenes", train=16, val=3, seed=5, size=48, workers=1)
    tiny_run.save(root / "run", tiny_run.config())
    (root / "failed" / "checkpoints").mkdir(parents=True)
    (root / "failed" / "metrics.jsonl").write_text("")
    (root / "words.txt").write_text("cat\ndog\n")
    (root / "mine.yaml").write_text("model:\n  width: 64\n")
    (root / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (root / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30)).save(root / f"photos/{name}.jpg")
    return root


def entries(place):
    """Everything in it, but for the indexes that reading a tar makes."""
    found = (os.path.join(folder, name) for folder, *names in os.walk(place) for name in sum(names, []))
    return sorted(path for path in found if ".index." not in path)


@pytest.mark.parametrize("typed, told", USES, ids=[" ".join(typed[:1] + typed[-1:]) for typed, _ in USES])
def test_a_wrong_use_is_told_what_to_do(groupvit, refused, place, monkeypatch, typed, told):
    monkeypatch.chdir(place)
    before = entries(place)
    ended = groupvit(*typed)
    refused(ended)
    assert ended.err.replace(f"{place}/", "") == f"groupvit: {told}\n"
    assert entries(place) == before


def test_a_recipe_is_found_from_any_folder(groupvit, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(groupvit("train", SCENES, "--workdir=new"), "no tar at runs/scenes")
