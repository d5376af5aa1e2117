"""`imagen-jax data`: look at your pictures and captions before training on them."""

import argparse
import json
import os

ACTIONS = {
    "check": "decode every record; say what is broken, and mark it",
    "stats": "sizes, aspect ratios, lengths of captions, numeric columns",
    "convert": "write the data set anew in another format",
    "preview": "a contact sheet of the pictures as a model will see them",
}
FORMATS = ("folder", "webdataset", "parquet", "tfrecord", "array_record")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "action",
        choices=tuple(ACTIONS),
        help="; ".join(f"{name}: {text}" for name, text in ACTIONS.items()),
    )
    parser.add_argument(
        "path", help="a folder, file or pattern, local or URL, or tfds:NAME"
    )
    parser.add_argument("--out", help="convert: the new folder; preview: the PNG file")
    parser.add_argument("--to", choices=FORMATS, help="convert: the new format")
    parser.add_argument(
        "--shard_size", type=int, default=1000, help="convert: records of a shard"
    )
    parser.add_argument("--split", default="train", help="of a TFDS data set")
    parser.add_argument("--index", default="", help="the folder of the tables")
    parser.add_argument("--picture", default="", help="the pictures' field or suffix")
    parser.add_argument("--caption", default="", help="the captions' field or suffix")
    parser.add_argument(
        "--min_side", type=int, default=1, help="convert, preview: least shorter side"
    )
    parser.add_argument("--resolution", type=int, default=64, help="preview: side")
    parser.add_argument("--crop", choices=("center", "random"), default="center")
    parser.add_argument("--num", type=int, default=32, help="preview: how many")
    parser.add_argument("--seed", type=int, default=0, help="preview: of the order")
    parser.add_argument(
        "--tokenizer",
        default="bytes",
        help="stats: bytes, or a SentencePiece model's path",
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="decoders"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Do one of the actions."""
    del rest
    return {"check": check, "stats": stats, "convert": convert, "preview": preview}[
        args.action
    ](args)


def shards_of(args: argparse.Namespace):
    """The shards with their tables, made where they are missing."""
    from imagen_jax.data import picture_task, records

    fields = records.Fields(args.picture, args.caption)
    return picture_task.shards_of(args.path, args.split, args.index, fields)


def collection_of(args: argparse.Namespace):
    """The sound records that are large enough."""
    from imagen_jax.data import collection

    rule = collection.Filter(min_side=args.min_side)
    found, _ = collection.taken(list(shards_of(args)), rule, 0.0, "train")
    return found


def check(args: argparse.Namespace) -> int:
    """Print what is broken; status 1 if anything is."""
    import tqdm

    from imagen_jax.data import checking, pictures

    shards = shards_of(args)
    total = sum(len(shard.table) for shard in shards)
    with tqdm.tqdm(total=total, unit="record", dynamic_ncols=True) as bar:
        found = checking.check(
            shards, threads=args.threads, report=lambda n: bar.update(n)
        )
    if args.json:
        told = {"records": found.total, "bad": dict(found.causes), "some": found.named}
        print(json.dumps(told, indent=1))
        return int(found.bad > 0)
    for line in found.named:
        print(line)
    if found.bad > len(found.named):
        print(f"... and {found.bad - len(found.named)} more")
    for cause, number in found.causes.most_common():
        print(f"{number:>8} {cause}: {pictures.CAUSES[cause]}")
    print(
        f"{found.total - found.bad} of {found.total} records are sound."
        + (" Training will leave the others out." if found.bad else "")
    )
    return int(found.bad > 0)


def stats(args: argparse.Namespace) -> int:
    """Print a summary."""
    from imagen_jax.data import checking
    from imagen_jax.text import tokenizer

    tokens: tokenizer.Tokenizer = tokenizer.ByteTokenizer()
    if args.tokenizer != "bytes":
        tokens = tokenizer.SentencePieceTokenizer(args.tokenizer)
    found = checking.stats(
        shards_of(args),
        lambda texts: tokens.encode(texts, 1 << 12, truncate=True)[1].sum(1),
    )
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for name, value in found.items():
        if isinstance(value, dict):
            value = "  ".join(f"{k} {v:g}" for k, v in value.items()) or "none"
        print(f"{name:>20}: {value}")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Write the data set in another format."""
    import tqdm

    from imagen_jax.data import converting

    if not args.out or not args.to:
        raise ValueError("data convert: --to FORMAT and --out FOLDER are required.")
    found = collection_of(args)
    with tqdm.tqdm(total=len(found), unit="record", dynamic_ncols=True) as bar:
        written, left_out = converting.convert(
            found,
            args.to,
            args.out,
            shard_size=args.shard_size,
            report=lambda n: bar.update(n),
        )
    more = f"; {left_out} could not be read and are left out" if left_out else ""
    print(f"{written} records in {args.out}{more}")
    return 0


def preview(args: argparse.Namespace) -> int:
    """Draw the first pictures of an epoch, cut and resized, over their captions."""
    from imagen_jax.cascade.contact_sheet import contact_sheet
    from imagen_jax.data import picture_task

    task = picture_task.PictureTask(
        name=args.path, contents=collection_of(args), crop=args.crop
    )
    number = min(args.num, len(task.contents))
    some = [task.example(args.seed, i, args.resolution) for i in range(number)]
    sheet = contact_sheet(
        [example["image"] for example in some],
        [example["text"] for example in some],
        columns=min(8, number),
        cell=max(128, min(args.resolution, 256)),
    )
    out = args.out or "preview.png"
    sheet.save(out)
    print(f"{number} of {len(task.contents)} pictures: {out}")
    return 0
