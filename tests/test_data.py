"""Data sets, loaders and data files."""

from __future__ import annotations

import contextlib
import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule.data import (
    DataFileError,
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,
    load_digits,
    random_split,
    read_examples,
    read_for_model,
)


def pairs(count: int) -> TensorDataset:
    numbers = np.arange(count)
    return TensorDataset(
        cr.from_numpy(np.stack([numbers, -numbers], axis=1).astype(np.float32)),
        cr.from_numpy(numbers),
    )


class Rows(Dataset):
    """The same rows as `pairs`, one by one: the slow way that the fast one must equal."""

    def __init__(self, count: int) -> None:
        self.whole = pairs(count)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Any:
        return self.whole[index]


@pytest.mark.parametrize("options", [
    {}, {"batch_size": 3}, {"batch_size": 4, "drop_last": True}, {"batch_size": 3, "shuffle": True},
    {"batch_size": 2, "sampler": [5, 1, 1]}, {"batch_sampler": [[1, 2, 3], [0]]},
    {"batch_size": 100},
])
def test_batches_of_a_tensor_dataset_equal_collated_rows(options: dict[str, Any]) -> None:
    fast = list(DataLoader(pairs(10), seed=7, **options))
    slow = list(DataLoader(Rows(10), seed=7, **options))
    assert len(fast) == len(slow) == len(DataLoader(pairs(10), **options))
    for (x, y), (x_slow, y_slow) in zip(fast, slow, strict=True):
        assert x.dtype == cr.float32
        assert y.dtype == cr.int64
        assert x.tolist() == x_slow.tolist()
        assert y.tolist() == y_slow.tolist()


def orders(loader: DataLoader, passes: int = 3) -> list[list[int]]:
    return [[int(one) for _, y in loader for one in y.tolist()] for _ in range(passes)]


def test_shuffling_visits_every_row_once_in_a_new_order_each_pass() -> None:
    seen = orders(DataLoader(pairs(50), batch_size=8, shuffle=True))
    assert all(sorted(order) == list(range(50)) for order in seen)
    assert seen[0] != seen[1] != seen[2] != list(range(50))


def test_a_seed_a_generator_and_the_global_seed_repeat_the_order() -> None:
    def loaded(**options: Any) -> list[list[int]]:
        return orders(DataLoader(pairs(30), batch_size=8, shuffle=True, **options))

    assert loaded(seed=1) == loaded(seed=1) != loaded(seed=2)
    assert loaded(generator=cr.Generator().manual_seed(1)) == loaded(seed=1)
    cr.manual_seed(3)
    first = loaded()
    cr.manual_seed(3)
    assert loaded() == first


def test_without_shuffling_the_order_is_the_data_sets() -> None:
    assert orders(DataLoader(pairs(7), batch_size=2), 1) == [list(range(7))]


def test_without_a_batch_size_rows_come_one_by_one() -> None:
    rows = list(DataLoader(pairs(3), batch_size=None))
    assert [tuple(x.shape) for x, _ in rows] == [(2,)] * 3
    assert len(DataLoader(pairs(3), batch_size=None)) == 3


def test_a_collate_function_gets_the_rows() -> None:
    loader = DataLoader(pairs(4), batch_size=2, collate_fn=lambda rows: [int(y) for _, y in rows])
    assert list(loader) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: DataLoader(iter([1])), TypeError, "__len__"),
    (lambda: DataLoader(pairs(3), batch_size=0), ValueError, "batch_size is 0"),
    (lambda: DataLoader(pairs(3), sampler=[0], shuffle=True), ValueError, "sampler"),
    (lambda: DataLoader(pairs(3), batch_sampler=[[0]], drop_last=True), ValueError, "leave out"),
    (lambda: DataLoader(pairs(3), seed=0, generator=cr.Generator()), ValueError, "not both"),
    (lambda: DataLoader(pairs(3), batch_size=None, drop_last=True), ValueError, "dropped"),
    (lambda: len(DataLoader(pairs(3), sampler=iter([0]))), TypeError, "no length"),
    (lambda: TensorDataset(), ValueError, "at least one"),
    (lambda: TensorDataset(cr.zeros(3), cr.zeros(4)), ValueError, "3 and 4 rows"),
    (lambda: TensorDataset(cr.tensor(1.0)), ValueError, "single number"),
    (lambda: random_split(pairs(5), [2, 2]), ValueError, "add up to 4"),
    (lambda: random_split(pairs(5), [-1, 6]), ValueError, "negative"),
    (lambda: Dataset()[0], NotImplementedError, "__getitem__"),
    (lambda: default_collate([{1}]), TypeError, "set"),
    (lambda: default_collate([cr.zeros(2), cr.zeros(3)]), ValueError, "row 1 has shape"),
    (lambda: default_collate([[1], [1, 2]]), ValueError, "1 and of 2 parts"),
])
def test_mistakes_are_named(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(")):
        make()


def test_random_split_is_disjoint_and_follows_its_generator() -> None:
    def split() -> list[Subset]:
        return random_split(pairs(11), [0.5, 0.25, 0.25], cr.Generator().manual_seed(5))

    parts = split()
    assert [len(part) for part in parts] == [6, 3, 2]
    rows = [int(row[1]) for part in parts for row in part]
    assert sorted(rows) == list(range(11))
    assert rows == [int(row[1]) for part in split() for row in part]
    assert [len(part) for part in random_split(pairs(11), [10, 1])] == [10, 1]


def test_a_subset_is_loaded_in_batches() -> None:
    loader = DataLoader(Subset(Subset(pairs(10), [9, 7, 5]), [2, 0]), batch_size=2)
    ((x, y),) = loader
    assert y.tolist() == [5, 9]
    assert x.tolist() == [[5, -5], [9, -9]]


def test_gradients_flow_through_a_data_set_that_requires_them() -> None:
    x = cr.ones(4, 2, requires_grad=True)
    for (batch,) in DataLoader(TensorDataset(x), batch_size=3):
        (batch * 2).sum().backward()
    assert x.grad.tolist() == [[2, 2]] * 4


def test_collating_follows_pytorch() -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    rows = [
        {"a": 1, "b": (2.5, "x"), "c": np.float32(3), "d": [True, np.arange(2)]},
        {"a": 2, "b": (3.5, "y"), "c": np.float32(4), "d": [False, np.arange(2)]},
    ]
    ours, theirs = default_collate(rows), torch_data.default_collate(rows)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if not hasattr(value, "dtype"):
            return value
        return str(value.dtype).split(".")[-1], value.tolist()

    assert plain(ours) == plain(theirs)


def test_the_digits_are_the_repositorys() -> None:
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images[0].tolist()[0] == [0, 0, 5, 13, 9, 1, 0, 0]
    assert images.sum() == 561718
    credit = (Path(cr.__file__).parent / "data" / "digits.credits.txt").read_text("utf-8")
    assert "Alpaydin" in credit
    assert "10.24432/C50P49" in credit
    assert "CC BY 4.0" in credit


# --- CSV -----------------------------------------------------------------------------------------

GOOD = """\
size,colour,weight,kind
1.5,red,10,a
2.5,"dark, red",20,b
3.5,blue,30,a
"""


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_a_csv_becomes_numbers_categories_and_classes(tmp_path: Path) -> None:
    examples = read_examples(written(tmp_path, "things.csv", GOOD))
    assert [column.name for column in examples.columns] == ["size", "colour", "weight"]
    assert examples.columns[1].categories == ("blue", "dark, red", "red")
    assert examples.inputs.tolist() == [
        [1.5, 0, 0, 1, 10], [2.5, 0, 1, 0, 20], [3.5, 1, 0, 0, 30],
    ]
    assert examples.target is not None
    assert examples.target.name == "kind"
    assert examples.target.classes == ("a", "b")
    assert examples.target.values.tolist() == [0, 1, 0]


@pytest.mark.parametrize("variant", [
    GOOD.replace("\n", "\r\n"),
    "\ufeff" + GOOD,
    "\n\n" + GOOD.replace("\n2.5", "\n\n2.5"),
    GOOD.replace("1.5,red,10,a", " 1.5 ,  red, 10 ,a "),
    GOOD.replace(",", ";").replace("dark;", "dark,"),
    GOOD.replace(",", "\t").replace("dark\t", "dark,"),
])
def test_spellings_of_the_same_csv(tmp_path: Path, variant: str) -> None:
    plain = read_examples(written(tmp_path, "things.csv", GOOD))
    assert read_examples(written(tmp_path, "things2.csv", variant)).fingerprint() == (
        plain.fingerprint()
    )


def test_a_packed_csv(tmp_path: Path) -> None:
    packed = written(tmp_path, "things.csv.gz", gzip.compress(GOOD.encode()))
    assert len(read_examples(packed).inputs) == 3
    with pytest.raises(DataFileError, match="damaged or cut short"):
        read_examples(written(tmp_path, "cut.csv.gz", gzip.compress(GOOD.encode())[:-12]))


def test_the_target_and_ignored_columns_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "things.csv", GOOD)
    examples = read_examples(path, target="weight", ignore=["colour"], task="regress")
    assert [column.name for column in examples.columns] == ["size", "kind"]
    assert examples.target is not None
    assert not examples.target.classes
    assert examples.target.values.tolist() == [10, 20, 30]


@pytest.mark.parametrize(("values", "task", "classes"), [
    (["1", "2", "1.0", "3"] * 10, "auto", ("1", "2", "3")),
    (["0.5", "0.25"] * 10, "auto", ()),
    (["0.5", "0.25"] * 10, "classify", ("0.25", "0.5")),
    ([str(n) for n in range(40)], "auto", ()),
    (["-1", "1"] * 10, "auto", ("-1", "1")),
    (["yes", "no"] * 10, "auto", ("no", "yes")),
    (["1", "2"] * 10, "regress", ()),
])
def test_the_task_is_found_from_the_target(
    tmp_path: Path, values: list[str], task: str, classes: tuple[str, ...]
) -> None:
    rows = "".join(f"{index},{value}\n" for index, value in enumerate(values))
    examples = read_examples(written(tmp_path, "t.csv", "x,y\n" + rows), task=task)
    assert examples.target is not None
    assert examples.target.classes == classes


MANY = "".join(f"person {n},{n % 2}\n" for n in range(60))

BAD_CSV = {
    "empty": ("", ["the file is empty"]),
    "blank": ("\n \n", ["the file is empty"]),
    "header only": ("a,b\n", ["a header and no rows"]),
    "no header": ("1,2\n3,4\n", ["first line (1, 2)", "header"]),
    "same name twice": ("a,b,a\n1,2,3\n", ["'a' twice", "columns 1 and 3"]),
    "column without a name": (",a,b\n0,1,2\n", ["column 1 of 3 has no name", "index=False"]),
    "short row": ("a,b,c\n1,2,3\n1,2\n", ["row 2 (line 3) has 2 cells", "3 columns", "'c'"]),
    "long row": ("a,b\n1,2\n\n1,2,9\n", ["row 2 (line 4) has 3 cells", "'9' is one too many"]),
    "open quote": ('a,b\n1,"2\n3,4\n', ["never closed"]),
    "text among numbers": ("a,b\n1,x\n2,y\noops,x\n4,y\n",
                           ["row 3 (line 4), column 'a'", "'oops'"]),
    "missing number": ("a,b\n1,x\n,y\n",
                       ["row 2 (line 3), column 'a'", "empty", "1 of 2", "--ignore"]),
    "NA": ("a,b\n1,x\n2,y\nNA,x\n", ["row 3 (line 4), column 'a'", "'NA'", "missing value"]),
    "NaN": ("a,b\n1,x\n2,y\nnan,x\n", ["row 3 (line 4), column 'a'", "missing value"]),
    "infinity": ("a,b\n1,x\n2,y\n-inf,x\n", ["row 3 (line 4), column 'a'", "not a finite"]),
    "underscore": ("a,b\n1,x\n2,y\n1_000,x\n", ["row 3 (line 4), column 'a'", "'1_000'"]),
    "missing category": ("a,b\nu,1\nv,2\n,1\n", ["row 3 (line 4), column 'a'", "empty"]),
    "missing class": ("a,b\n1,x\n2,\n3,y\n", ["row 2 (line 3), column 'b'", "empty"]),
    "missing target number": ("a,b\n1,.5\n2,\n3,.7\n", ["row 2 (line 3), column 'b'", "empty"]),
    "one class": ("a,b\n1,x\n2,x\n", ["'b' is the same in all 2 rows"]),
    "names": ("a,b\n" + MANY, ["column 'a' holds 60 different texts", "--ignore a"]),
    "names as classes": ("b,a\n" + "".join(f"{n},person {n}\n" for n in range(60)),
                         ["60 different values", "too many"]),
    "one column": ("a\n1\n2\n", ["'a' is the only column"]),
    "decimal commas": ('a,b\n"1,5",x\n"2,25",y\n',
                       ["row 1 (line 2), column 'a'", "decimal comma", "write 1.5,"]),
    "thousands": ('a;b\n1.234,50;1\n5,5;2\n', ["'1.234,50'", "thousands", "write 1234.50,"]),
    "either": ('a;b\n1,234;1\n5,678;2\n', ["'1,234'", "write 1234 or 1.234,"]),
    "percent": ("a,b\n50%,1\n60%,2\n", ["'50%'", "a unit", "write 50,"]),
    "currency": ("a,b\n€ 3,1\n4 €,2\n", ["'€ 3'", "a unit", "write 3,"]),
    "comma among numbers": ('a,b\n1.5,x\n2.5,y\n"3,5",x\n', ["row 3 (line 4)", "write 3.5,"]),
    "decimal commas to predict": ('a;b\n1;1,5\n2;2,5\n', ["column 'b'", "write 1.5,"]),
    "missing target": ("a,b\n1,\n2,3\n", ["what is to be predicted must be known"]),
    "header again": ("a,b\n1,2\na,b\n3,4\n", ["row 2 (line 3) repeats the header"]),
    "not UTF-8": (b"a,b\n1,caf\xe9\n", ["0xe9", "UTF-8"]),
    "binary": (b"\x00\x01\x02,\n\x00\n", ["bin"]),
}


def test_dates_and_versions_stay_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "d.csv", "v,d,b\n1.2.3,2020.01.02,1.5\n1.2.4,2020.01.03,2\n")
    assert [len(column.categories) for column in read_examples(path).columns] == [2, 2]


def test_advice_fits_the_column(tmp_path: Path) -> None:
    texts = "b,a\n" + "".join(f"{n},person {n}\n" for n in range(60))
    with pytest.raises(DataFileError) as caught:
        read_examples(written(tmp_path, "t.csv", texts))
    assert "regress" not in str(caught.value)
    numbers = "b,a\n" + "".join(f"{n},{n}\n" for n in range(60))
    with pytest.raises(DataFileError, match="--task regress"):
        read_examples(written(tmp_path, "n.csv", numbers), task="classify")
    with pytest.raises(DataFileError) as caught:
        read_examples(written(tmp_path, "m.csv", "a,b\n1,\n2,3\n"))
    assert "--ignore" not in str(caught.value)


def test_files_that_are_no_archive_are_told_so(tmp_path: Path) -> None:
    for content, words in ((b"hello", "no zip file, it begins with b'hello'"),
                           (b"PK\x03\x04", "cut short or damaged")):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(DataFileError, match=words) as caught:
            read_examples(str(tmp_path / "x.npz"))
        assert "pickle" not in str(caught.value)
    with pytest.raises(DataFileError, match=re.escape(f"{tmp_path}: no IDX files")):
        read_examples(str(tmp_path))


@pytest.mark.parametrize("name", BAD_CSV)
def test_bad_csv_files_are_refused_with_the_place(tmp_path: Path, name: str) -> None:
    content, words = BAD_CSV[name]
    with pytest.raises(DataFileError) as caught:
        read_examples(written(tmp_path, "bin.csv", content))
    message = str(caught.value)
    assert message.startswith("bin.csv: ")
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(("options", "words"), [
    ({"target": "no"}, "there is no column 'no'"),
    ({"ignore": ["no"]}, "there is no column 'no'"),
    ({"target": "kind", "ignore": ["kind"]}, "cannot be the target and be ignored"),
    ({"ignore": ["size", "colour", "weight"]}, "the only column left"),
    ({"task": "regress"}, "holds texts such as 'a'"),
])
def test_wrong_columns_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataFileError, match=words):
        read_examples(written(tmp_path, "things.csv", GOOD), **options)


def test_a_file_that_is_not_there_suggests_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path, "flowers.csv", GOOD)
    with pytest.raises(DataFileError, match=r"no file .*flower\.csv\. Did you mean flowers\.csv\?"):
        read_examples(str(tmp_path / "flower.csv"))
    with pytest.raises(DataFileError, match="unknown kind of file"):
        read_examples(written(tmp_path, "flowers.xlsx", "PK"))
    with pytest.raises(DataFileError, match="--target names a column of a CSV"):
        read_examples("digits", target="kind")


# --- columns of a trained model ------------------------------------------------------------------

def for_model(folder: Path, content: str) -> Any:
    examples = read_examples(written(folder, "train.csv", GOOD))
    assert examples.target is not None
    return read_for_model(
        written(folder, "new.csv", content), examples.columns, "kind", examples.target.classes
    )


def test_columns_are_matched_by_name(tmp_path: Path) -> None:
    found = for_model(tmp_path, "extra,weight,colour,size\n1,10,red,1.5\n")
    assert found.inputs.tolist() == [[1.5, 0, 0, 1, 10]]
    assert found.target is None
    assert found.notes == ("not used: 'extra'",)


def test_a_target_is_read_when_it_is_there(tmp_path: Path) -> None:
    assert for_model(tmp_path, GOOD).target.values.tolist() == [0, 1, 0]
    assert for_model(tmp_path, "size,colour,weight,kind\n1,red,10,b\n").target.values[0] == 1
    assert for_model(tmp_path, "size,colour,weight,kind\n1,red,10,\n").target is None


@pytest.mark.parametrize(("content", "words"), [
    ("size,weight,shade\n1,2,3\n", ["1 column", "'colour'", "Not known to the model: 'shade'"]),
    ("size,colour,weight\n1,pink,2\n", ["row 1 (line 2), column 'colour'", "'pink'", "'blue'"]),
    ("size,colour,weight,kind\n1,red,2,c\n", ["row 1", "column 'kind'", "class 'c' is unknown"]),
    ("size,colour,weight\nx,red,2\n", ["row 1 (line 2), column 'size'", "'x' is not a number"]),
    ("size,colour,weight\n1,red,\n", ["row 1 (line 2), column 'weight'", "empty"]),
])
def test_rows_that_do_not_fit_a_model(tmp_path: Path, content: str, words: list[str]) -> None:
    with pytest.raises(DataFileError) as caught:
        for_model(tmp_path, content)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


# --- arrays --------------------------------------------------------------------------------------

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


def saved(folder: Path, **arrays: Any) -> str:
    path = folder / "arrays.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize("names", [("x", "y"), ("X", "y"), ("X_train", "y_train"),
                                   ("data", "target")])
def test_npz(tmp_path: Path, names: tuple[str, str]) -> None:
    examples = read_examples(saved(tmp_path, **dict(zip(names, (X, Y), strict=True))))
    assert examples.inputs.tolist() == X.tolist()
    assert examples.target is not None
    assert examples.target.classes == ("0", "1")
    assert not examples.same_unit


def test_npz_with_a_test_part_and_texts(tmp_path: Path) -> None:
    names = np.array(["no", "yes"])
    examples = read_examples(saved(
        tmp_path, x_train=X.reshape(6, 1, 2), y_train=names[Y], x_test=X[:2].reshape(2, 1, 2),
        y_test=names[Y[:2]],
    ))
    assert examples.target is not None
    assert examples.target.classes == ("no", "yes")
    assert examples.same_unit
    assert examples.columns[1].name == "pixel_0_1"
    assert examples.held_out is not None
    assert examples.held_out[1].tolist() == [0, 1]


WITH_NAN = X.copy()
WITH_NAN[3, 1] = np.nan


@pytest.mark.parametrize(("arrays", "words"), [
    ({"a": X}, ["no inputs and target", "'a'"]),
    ({"x": X, "y": Y[:4]}, ["6 rows of inputs and 4 of 'y'"]),
    ({"x": X[:, 0], "y": Y}, ["'x' has shape (6,)", "reshape(-1, 1)"]),
    ({"x": WITH_NAN, "y": Y}, ["row 4", "x[3, 1] is nan"]),
    ({"x": X, "y": np.where(Y, np.inf, 0)}, ["row 2", "y[1] is inf"]),
    ({"x": X, "y": np.eye(2)[Y]}, ["shape (6, 2)", "one-hot", "argmax"]),
    ({"x": X.astype(str), "y": Y}, ["'x' holds <U", "not numbers"]),
    ({"x": X[:0], "y": Y[:0]}, ["empty"]),
    ({"x": X, "y": Y * 0}, ["the same in all 6 rows"]),
    ({"x": X.astype(object), "y": Y}, ["pickled Python objects"]),
    ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, ["2 inputs", "1 in the test"]),
    ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, ["class '2' is unknown"]),
])
def test_bad_npz(tmp_path: Path, arrays: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DataFileError) as caught:
        read_examples(saved(tmp_path, **arrays))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_damaged_npz(tmp_path: Path) -> None:
    content = Path(saved(tmp_path, x=X, y=Y)).read_bytes()
    for damaged in (b"", b"PK", content[:100], content[:-30], b"not a zip at all"):
        with pytest.raises(DataFileError, match=r"not a readable \.npz"):
            read_examples(written(tmp_path, "damaged.npz", damaged))
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataFileError, match="single array"):
        read_examples(str(tmp_path / "one.npz"))


def idx(values: Any) -> bytes:
    array = np.asarray(values, dtype=np.uint8)
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


IMAGES = np.arange(2 * 6 * 3).reshape(6, 2, 3) % 256


def idx_folder(folder: Path, images: bytes | None = None, labels: bytes | None = None) -> Path:
    contents = {"images-idx3": images or idx(IMAGES), "labels-idx1": labels or idx(Y)}
    for name, content in contents.items():
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))
        (folder / f"t10k-{name}-ubyte").write_bytes(content)  # not packed: accepted too
    return folder


@pytest.mark.parametrize("name", ["", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_idx_by_folder_and_by_either_file(tmp_path: Path, name: str) -> None:
    examples = read_examples(str(idx_folder(tmp_path) / name))
    assert examples.inputs.tolist() == IMAGES.reshape(6, 6).tolist()
    assert examples.target is not None
    assert examples.target.values.tolist() == Y.tolist()
    assert (examples.held_out is None) == bool(name)
    assert examples.same_unit


@pytest.mark.parametrize(("parts", "words"), [
    ({"images": b"\x89PNG...."}, ["not an IDX file", "89 50 4e 47"]),
    ({"labels": idx(Y[:5])}, ["6 images", "5 labels"]),
    ({"images": idx(IMAGES)[:-3]}, ["(6, 2, 3)", "52 bytes", "49"]),
    ({"images": idx(IMAGES)[:9]}, ["header is cut short"]),
    ({"images": b"\0\0\x07\x03" + idx(IMAGES)[4:]}, ["not an IDX file"]),
])
def test_bad_idx(tmp_path: Path, parts: dict[str, bytes], words: list[str]) -> None:
    with pytest.raises(DataFileError) as caught:
        read_examples(str(idx_folder(tmp_path, **parts)))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_idx_files_that_are_cut_or_absent(tmp_path: Path) -> None:
    folder = idx_folder(tmp_path)
    packed = folder / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-5])
    with pytest.raises(DataFileError, match="damaged or cut short"):
        read_examples(str(packed))
    packed.unlink()
    with pytest.raises(DataFileError, match=r"train-images-idx3-ubyte\.gz, is missing"):
        read_examples(str(folder / "train-labels-idx1-ubyte.gz"))
    (folder / "empty").mkdir()
    with pytest.raises(DataFileError, match="no IDX files in this folder"):
        read_examples(str(folder / "empty"))


def test_mnist(shared_data: Path) -> None:
    examples = read_examples(str(shared_data / "mnist"))
    assert examples.inputs.shape == (60_000, 784)
    assert examples.target is not None
    assert examples.target.values[:5].tolist() == [5, 0, 4, 1, 9]
    assert examples.held_out is not None
    assert examples.held_out[0].shape == (10_000, 784)


# --- anything at all -----------------------------------------------------------------------------

CELLS = st.sampled_from(
    ["a", "b", "1", "2.5", "", "nan", "1e400", "inf", "x y", '"', '""', "é", "?"]
)
TEXTS = st.lists(
    st.lists(CELLS | st.text("ab1,;\"'\n\t ", max_size=3), max_size=4).map(",".join), max_size=6
).map("\n".join)


@given(content=TEXTS | st.text(max_size=40))
def test_any_text_is_read_or_refused_in_words(
    content: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp(), "any.csv", content.encode("utf-8", "replace"))
    try:
        examples = read_examples(path)
    except DataFileError as error:
        message = str(error)
    else:
        message = "any.csv: "
        assert np.isfinite(examples.inputs).all()
        assert examples.inputs.shape[1] == sum(column.width for column in examples.columns)
    assert message.startswith("any.csv: ")


@given(
    place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 200),
    packed=st.booleans(),
)
def test_damaged_arrays_are_read_or_refused_in_words(
    place: int, byte: int, cut: int, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name, whole in (
        ("d-images-idx3-ubyte", gzip.compress(idx(IMAGES), mtime=0) if packed else idx(IMAGES)),
        ("d.npz", Path(saved(folder, x=X, y=Y)).read_bytes()),
    ):
        damaged = bytearray(whole[: len(whole) - cut % len(whole)])
        damaged[place % len(damaged)] = byte
        written(folder, "d-labels-idx1-ubyte", idx(Y))
        path = written(folder, name, bytes(damaged))
        with contextlib.suppress(DataFileError):
            assert len(read_examples(path).inputs) > 0
