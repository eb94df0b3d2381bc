"""The layouts of a data folder: which files belong to which split and class, and which are left out.

The files are empty: nothing here decodes an image.
"""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.datasets import images, share_of
from common.datasets.layouts import Layout, find_layout
from common.errors import UserError

Names = dict[str, list[str]]


@pytest.fixture(autouse=True)
def without_heif(monkeypatch: pytest.MonkeyPatch):
    """Only the formats of Pillow, also where pillow-heif is installed."""
    extensions = images.image_extensions() - images.HEIF_EXTENSIONS
    monkeypatch.setattr(images, "image_extensions", lambda: extensions)


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def numbered(folder: str, count: int) -> list[str]:
    return [f"{folder}/{i}.jpg" for i in range(count)]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A folder with train/ and test/: 4 and 2 images of each of two classes."""
    names = [f"{s}/{c}" for s, c in (("train", "cat"), ("train", "dog"))]
    return make(
        tmp_path / "photos",
        *(name for folder in names for name in numbered(folder, 4)),
        *numbered("test/cat", 2),
        *numbered("test/dog", 2),
    )


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    return make(tmp_path / "photos", *numbered("cat", 10), *numbered("dog", 7))


def shown(layout: Layout) -> tuple[Names, Names]:
    both = (layout.train, layout.held_out)
    return tuple({c: [f.name for f in files] for c, files in s.classes.items()} for s in both)  # type: ignore[return-value]


def refused(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        find_layout(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- Folders with a split


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_are_held_out_in_training_and_test_images_in_an_evaluation(
    split: Path, name: str
):
    make(split, *numbered(f"{name}/cat", 3), *numbered(f"{name}/dog", 3))
    training, evaluation = find_layout(split), find_layout(split, evaluation=True)
    assert (training.kind, training.how) == ("valid", f"{name}/; test/ is for evaluate")
    assert training.held_out.root == split / name
    assert (evaluation.kind, evaluation.how) == ("test", "")
    assert evaluation.held_out.root == split / "test"
    assert shown(training)[1]["cat"] == numbered("cat", 3)
    assert shown(training)[0] == shown(evaluation)[0]
    for one in (training, evaluation):
        assert one.left_out.describe() == ""


@pytest.mark.parametrize("evaluation", [False, True])
def test_either_split_alone_serves_training_and_evaluation(split: Path, evaluation: bool):
    layout = find_layout(split, evaluation=evaluation)
    assert (layout.kind, layout.how) == ("test", "")
    (split / "test").rename(split / "val")
    layout = find_layout(split, evaluation=evaluation)
    assert (layout.kind, layout.how) == ("valid", "val/")


def test_a_ratio_draws_validation_images_from_train(split: Path):
    layout = find_layout(split, valid_ratio=0.5, seed=3)
    how = "0.5 of each class of train/, drawn with seed 3; test/ is for evaluate"
    assert (layout.kind, layout.how) == ("valid", how)
    train, valid = shown(layout)
    for name in ("cat", "dog"):
        assert (len(train[name]), len(valid[name])) == (2, 2)
        assert sorted(train[name] + valid[name]) == numbered(name, 4)
    assert layout.held_out.root == split / "train"


def test_a_ratio_beside_validation_images_is_refused(split: Path):
    (split / "test").rename(split / "val")
    assert "--valid-ratio 0.1: " in (text := refused(split, valid_ratio=0.1))
    assert "val/; leave the option out" in text


def test_test_images_without_labels_name_the_ratio(split: Path):
    for name in ("cat", "dog"):
        (split / "test" / name).rename(split / "train" / name / "more")
    make(split, *numbered("test", 5))
    text = refused(split)
    assert (
        "put them into test/<class>/, or hold out some of train/ with --valid-ratio 0.2; " in text
    )
    assert text.endswith("it has 5 images beside the class folders (test/0.jpg, ...)")
    find_layout(split, valid_ratio=0.2)  # the suggested fix works


def test_two_validation_folders_are_refused(split: Path):
    make(split, "val/cat/0.jpg", "valid/cat/0.jpg")
    assert "has val/ and valid/: keep one" in refused(split)


def test_images_below_a_class_folder_are_read(split: Path):
    make(split, "train/cat/album/a.jpg", "train/cat/album/deep/b.jpg", "train/cat/aa.jpg")
    names = shown(find_layout(split))[0]["cat"]
    assert names == sorted(
        [*numbered("cat", 4), "cat/aa.jpg", "cat/album/a.jpg", "cat/album/deep/b.jpg"]
    )


def test_links_form_no_loop_and_do_not_reach_the_other_split(split: Path):
    (split / "train/cat/again").symlink_to(split / "train/cat")
    (split / "train/cat/all").symlink_to(split)
    make(split, "elsewhere/more/9.jpg")
    (split / "train/dog/linked").symlink_to(split / "elsewhere/more")
    layout = find_layout(split)
    assert shown(layout)[0] == {
        "cat": numbered("cat", 4),
        "dog": [*numbered("dog", 4), "dog/linked/9.jpg"],
    }
    assert layout.left_out.describe() == (
        "1 folder beside train/ (elsewhere/), "
        "2 links to a folder above it, or in the same folder of images (train/cat/again/, ...)"
    )


def test_an_image_and_a_class_that_are_linked_within_the_folder_are_read_once(unsplit: Path):
    (unsplit / "cat/copy.jpg").symlink_to(unsplit / "cat/0.jpg")
    (unsplit / "dog/cats").symlink_to(unsplit / "cat")
    layout = find_layout(unsplit)
    train, valid = shown(layout)
    assert sorted(train["cat"] + valid["cat"]) == numbered("cat", 10)
    assert sorted(train["dog"] + valid["dog"]) == numbered("dog", 7)
    assert layout.left_out.describe() == (
        "1 link to another image of the folder (cat/copy.jpg), "
        "1 link to a folder above it, or in the same folder of images (dog/cats/)"
    )
    (unsplit / "kitty").symlink_to(unsplit / "cat")
    assert "no images of kitty" in refused(unsplit)


def test_a_flat_test_folder_beside_val_is_left_out(split: Path):
    shutil.move(split / "test", split / "val")
    make(split, "test/0.jpg")
    for evaluation in (False, True):
        layout = find_layout(split, evaluation=evaluation)
        assert (layout.kind, layout.how) == ("valid", "val/")
        assert layout.left_out.describe() == "1 folder beside train/ (test/)"


# ---- Folders without a split


def test_a_share_of_each_class_is_held_out(unsplit: Path):
    layout = find_layout(unsplit)
    assert (layout.kind, layout.how) == ("valid", "0.2 of each class, drawn with seed 0")
    train, valid = shown(layout)
    assert {name: len(files) for name, files in valid.items()} == {"cat": 2, "dog": 1}
    for name, count in (("cat", 10), ("dog", 7)):
        assert sorted(train[name] + valid[name]) == numbered(name, count)
        assert train[name] == sorted(train[name])


def test_train_alone_is_split_too(split: Path):
    (split / "test").rename(split.parent / "elsewhere")
    layout = find_layout(split)
    assert layout.how == "0.2 of each class of train/, drawn with seed 0"
    assert {name: len(files) for name, files in shown(layout)[1].items()} == {"cat": 1, "dog": 1}


def test_the_draw_is_the_same_on_every_system(unsplit: Path, monkeypatch: pytest.MonkeyPatch):
    """The first by the SHA-256 of "<seed>/<class>/<file>", computed with sha256sum."""
    expected = shown(find_layout(unsplit, seed=5))
    # cat/7.jpg 0ccf, cat/8.jpg 2258; dog/0.jpg 04df.
    assert expected[1] == {"cat": ["cat/7.jpg", "cat/8.jpg"], "dog": ["dog/0.jpg"]}
    scandir = os.scandir

    @contextmanager
    def backwards(path):
        with scandir(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    assert shown(find_layout(unsplit, seed=5)) == expected


def test_the_draw_depends_on_the_seed_and_little_on_one_more_image(unsplit: Path):
    make(unsplit, *(f"cat/{i}.jpg" for i in range(10, 100)))
    before = set(shown(find_layout(unsplit))[1]["cat"])
    make(unsplit, "cat/new.jpg")
    after = set(shown(find_layout(unsplit))[1]["cat"])
    assert len(before) == len(after) == 20
    assert len(before & after) >= 19
    assert set(shown(find_layout(unsplit, seed=1))[1]["cat"]) != after


@pytest.mark.parametrize(("ratio", "held_out"), [(0.001, 1), (0.29, 29), (0.999, 99)])
def test_each_class_has_images_on_both_sides(unsplit: Path, ratio: float, held_out: int):
    make(unsplit, *(f"cat/{i}.jpg" for i in range(10, 100)))
    train, valid = shown(find_layout(unsplit, valid_ratio=ratio))
    assert len(valid["cat"]) == held_out
    assert len(train["cat"]) == 100 - held_out
    assert min(len(train["dog"]), len(valid["dog"])) >= 1


@pytest.mark.parametrize(
    ("ratio", "number", "share"),
    [(0.29, 100, 29), (0.57, 5000, 2850), (0.1, 30, 3), (0.7, 10, 7), (1e-9, 100, 0), (0.3, 9, 2)],
)
def test_a_share_is_computed_in_decimals(ratio: float, number: int, share: int):
    assert share_of(ratio, number) == share


def test_a_class_of_one_image_is_refused(unsplit: Path):
    make(unsplit, "eel/0.jpg")
    assert "only one image of eel (1 in all), and one of each class is held out" in refused(unsplit)


# ---- A csv of names and labels


@pytest.mark.parametrize(
    "header", ["filename,label", "id,breed", "Image Name,class", "path,target"]
)
@pytest.mark.parametrize("folder", ["", "images/", "a/b/"])
@pytest.mark.parametrize("named", ["file", "stem", "path"])
def test_a_csv_names_the_images_of_each_class(tmp_path: Path, header: str, folder: str, named: str):
    names = [f"{folder}{i}.jpg" for i in range(6)]
    make(tmp_path, *names)
    rows = {
        "file": [name.rpartition("/")[2] for name in names],
        "stem": [str(i) for i in range(6)],
        "path": names,
    }[named]
    lines = [f"{row},{'cat' if i % 2 else 'dog'}\n" for i, row in enumerate(rows)]
    (tmp_path / "any.csv").write_text(f"{header}\n{''.join(lines)}")
    layout = find_layout(tmp_path, seed=1)
    assert layout.how == "labels of any.csv; 0.2 of each class, drawn with seed 1"
    train, valid = shown(layout)
    assert {name: sorted(train[name] + valid[name]) for name in train} == {
        "cat": names[1::2],
        "dog": names[::2],
    }
    assert layout.left_out.describe() == ""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    names = [f"images/{i}.jpg" for i in range(4)]
    make(tmp_path / "t", *names)
    rows = "".join(f"{i},{i}.jpg,{'cat' if i % 2 else 'dog'},90\n" for i in range(4))
    (tmp_path / "t/labels.csv").write_text(f"id,filename,label,width\n{rows}")
    return tmp_path / "t"


def test_other_columns_do_not_matter_and_images_without_a_label_are_counted(table: Path):
    make(table, "images/8.jpg", "test/9.jpg")
    layout = find_layout(table)
    assert list(layout.train.classes) == ["cat", "dog"]
    assert (
        layout.left_out.describe() == "2 images without a label in labels.csv (images/8.jpg, ...)"
    )


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("filename,label", "file,class,", "rows that are not"),
        ("width", "class", "several columns that may be the labels, label, class"),
        ("width", "image", "several columns that may be the file names, filename, image"),
        ("label", "animal", "name the column of the files filename, and that of the labels label"),
        ("3.jpg", "7.jpg", "names without an image, 7.jpg (1 in all): add them"),
        ("3.jpg", "2.jpg", "repeated ids, 2.jpg"),
        ("3.jpg", "images/2.jpg", "several rows for images/2.jpg (1 in all)"),
        ("1.jpg,cat", "1.jpg,eel", "only one image of cat, eel"),
        ("1.jpg,cat", "1.jpg,", "rows that are not id,filename,label,width: row 3 '1,1.jpg,,90'"),
    ],
)
def test_mistakes_in_a_csv_are_reported(table: Path, old: str, new: str, expected: str):
    change(table / "labels.csv", old, new)
    assert expected in refused(table)


def test_a_name_of_several_images_is_reported(table: Path):
    make(table, "more/3.jpg")
    assert "names of several images, 3.jpg (1 in all): give their paths in" in refused(table)
    change(table / "labels.csv", "3.jpg", "more/3.jpg")
    assert find_layout(table).left_out.describe() == (
        "1 image without a label in labels.csv (images/3.jpg)"
    )


def test_of_several_files_of_labels_one_must_be_named_so(table: Path):
    (table / "labels.csv").rename(table / "a.csv")
    assert find_layout(table).how.startswith("labels of a.csv;")
    (table / "b.csv").write_text("name,label\nx.jpg,cat\n")
    assert "several files of labels, a.csv, b.csv (2 in all): call the right one" in refused(table)
    (table / "b.csv").rename(table / "labels.csv")
    assert "names without an image, x.jpg" in refused(table)


def test_a_csv_beside_class_folders_is_no_file_of_labels(unsplit: Path):
    (unsplit / "predictions.csv").write_text("path,class\ncat/0.jpg,dog\n")
    layout = find_layout(unsplit)
    assert list(layout.train.classes) == ["cat", "dog"]
    assert layout.left_out.describe() == (
        "1 CSV (predictions.csv; a file of labels must be called labels.csv)"
    )


def test_the_folder_of_a_competition_names_the_command(tmp_path: Path):
    make(tmp_path, "trainLabels.csv", "train/1.png", "test/1.png")
    assert f"run.py kaggle --data-dir {tmp_path}" in refused(tmp_path)


# ---- Other folders


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "has no class folders"),
        (["a.jpg", "b.jpg"], "has no class folders"),
        (["test/cat/0.jpg", "test/dog/0.jpg"], "has test (1 in all), but no folder train/"),
        (["val/cat/0.jpg", "Test/cat/0.jpg"], "has Test, val (2 in all), but no folder train/"),
        (["Train/cat/0.jpg", "Test/cat/0.jpg"], "has Test, Train (2 in all), but no folder train/"),
        (["train/0.jpg", "test/0.jpg"], "train has no class folders: expected"),
        (["cat/a.txt", "dog/b.txt"], "has no images, but 2 TXT (cat/a.txt, ...)"),
    ],
)
def test_a_folder_of_no_layout_is_refused_with_the_layouts(
    tmp_path: Path, names: list[str], expected: str
):
    text = refused(make(tmp_path, *names))
    assert expected in text
    assert "expected train/<class>/ with test/<class>/ or val/<class>/, or <class>/" in text
    assert "or a labels.csv" in text


def test_a_single_class_folder_is_taken_for_a_folder_around_the_data(split: Path):
    text = refused(split.parent)
    assert f"has only the folder photos/, so only one class: pass {split} if" in text
    find_layout(split)  # the suggested fix works


# ---- What is left out


def test_each_kind_of_file_that_is_not_read_is_counted_and_named(split: Path):
    make(
        split,
        *(f"train/cat/IMG_{i}.HEIC" for i in range(3)),
        *("train/dog/a.nef", "test/dog/b.NEF", "train/cat/album/notes.txt", "test/cat/noext"),
        *("train/loose.jpg", "top.jpg", "unsorted/1.jpg", "README.md"),
    )
    assert find_layout(split).left_out.describe() == (
        "1 MD (README.md), 1 image beside train/ (top.jpg), 1 folder beside train/ (unsorted/), "
        "1 image beside the class folders (train/loose.jpg), "
        "3 HEIC (train/cat/IMG_0.HEIC, ...; install pillow-heif to read them), "
        "1 TXT (train/cat/album/notes.txt), "
        "2 NEF (test/dog/b.NEF, ...; raw: develop them to JPEG), "
        "1 file without an extension (test/cat/noext)"
    )


def test_many_kinds_of_files_are_counted_together(split: Path):
    make(split, *(f"test/cat/{k}.{'abcdefg'[k]}x" for k in range(7)), "test/cat/8.gx", "y.heic")
    assert find_layout(split).left_out.describe() == (
        "1 HEIC (y.heic; install pillow-heif to read them), 1 AX (test/cat/0.ax), "
        "1 BX (test/cat/1.bx), 1 CX (test/cat/2.cx), 1 DX (test/cat/3.dx), "
        "2 GX (test/cat/6.gx, ...), 2 files of other kinds (test/cat/4.ex, ...)"
    )


def test_what_systems_leave_is_ignored_without_a_word(split: Path):
    expected = shown(find_layout(split))
    make(split, *(f"train/cat/{n}" for n in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg")))
    make(split, "__MACOSX/cat/0.jpg", "train/.git/0.jpg", "train/cat/@eaDir/0.jpg", ".hidden.jpg")
    layout = find_layout(split)
    assert shown(layout) == expected
    assert layout.left_out.describe() == ""


def test_a_class_of_only_heic_says_what_it_has(split: Path):
    make(split, *(f"train/eel/{i}.heic" for i in range(10)), "test/eel/0.jpg")
    text = refused(split)
    assert "has no images of eel (1 in all): add some or remove the folder; " in text
    assert text.endswith(
        "eel has 10 HEIC (train/eel/0.heic, ...; install pillow-heif to read them)"
    )


def test_heic_is_read_where_pillow_heif_is_installed(split: Path, monkeypatch: pytest.MonkeyPatch):
    extensions = images.image_extensions() | images.HEIF_EXTENSIONS
    monkeypatch.setattr(images, "image_extensions", lambda: extensions)
    make(split, "train/cat/a.HEIC")
    layout = find_layout(split)
    assert "cat/a.HEIC" in shown(layout)[0]["cat"]
    assert layout.left_out.describe() == ""
