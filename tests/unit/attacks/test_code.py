"""Nothing that comes with a model or an adapter is run: no pickle, no module, no YAML tag, no template's code."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sienn_ray.admission import check_config
from sienn_ray.base_model import load_causal_lm, load_tokenizer
from sienn_ray.errors import InvalidBaseModelError, SiennError
from sienn_ray.hub import SNAPSHOT_PATTERNS
from sienn_ray.inference.requests.adapter_files import read_tensors
from sienn_ray.training.checkpoint import _TENSORS

ROOT = Path(__file__).parents[3]
SHIPPED = ("sienn_ray", "deployments")
# Modules that run what they read, or unpack what they are given.
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "tarfile",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"extractall", "unpack_archive"}


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self._mark,))


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """A file that code of a stranger would leave; it isn't there at the end."""
    mark = tmp_path / "it-was-run"
    yield mark
    assert not mark.exists()


@pytest.fixture
def model(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be tampered with."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def with_config(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def with_module(folder: Path, mark: Path) -> dict[str, str]:
    """Add a module of the repository's own, as models with custom code have it; gives their `auto_map`."""
    (folder / "custom.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Custom: pass\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
    return dict.fromkeys(names, "custom.Custom")


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path: Path) -> None:
    """Or the tests below would show nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_code_of_a_repository_is_not_run_with_a_model(model: Path, mark: Path) -> None:
    with_config(model, "config.json", auto_map=with_module(model, mark))
    load_causal_lm(model, torch.device("cpu"))


def test_code_of_a_repository_is_not_run_with_a_tokenizer(model: Path, mark: Path) -> None:
    auto_map = {"AutoTokenizer": ["custom.Custom", "custom.Custom"]}
    with_module(model, mark)
    with_config(model, "tokenizer_config.json", auto_map=auto_map)
    load_tokenizer(model)
    with_config(model, "tokenizer_config.json", tokenizer_class="Custom", auto_map=auto_map)
    try:
        load_tokenizer(model)
    except (ValueError, SiennError):  # refused, or another class is taken: both run nothing
        return


def test_a_type_of_a_repository_s_own_is_refused_before_any_download(model: Path, mark: Path) -> None:
    config = {**json.loads((model / "config.json").read_text()), "auto_map": with_module(model, mark)}
    with pytest.raises(InvalidBaseModelError, match="needs code from its repository"):
        check_config("owner/model", {**config, "model_type": "custom"})


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "adapter_model.bin", "pytorch_model.pt"])
def test_pickled_weights_are_not_read(model: Path, mark: Path, name: str) -> None:
    for path in model.glob("*.safetensors"):
        path.unlink()
    (model / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(OSError):  # noqa: PT011  (transformers' words for weights that aren't there)
        load_causal_lm(model, torch.device("cpu"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "custom.py", "weights.pkl", "model.h5", "x.msgpack"])
def test_such_files_stay_on_the_hub(name: str) -> None:
    from huggingface_hub.utils import filter_repo_objects

    assert list(filter_repo_objects([name], allow_patterns=SNAPSHOT_PATTERNS)) == []


def test_an_adapter_with_pickled_weights_is_not_read(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "auto_mapping": "custom"}))
    with pytest.raises((OSError, SiennError)):
        read_tensors(tmp_path)


def test_a_checkpoint_s_tensors_are_read_without_objects(tmp_path: Path, mark: Path) -> None:
    torch.save({"state": Bomb(mark)}, tmp_path / _TENSORS)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / _TENSORS, weights_only=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch MARK') }}",
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c.__init__.__globals__ }}{% endfor %}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['os'].system('touch MARK') }}",
        "{{ strftime_now.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_chat_template_gets_out_of_no_sandbox(model: Path, mark: Path, template: str) -> None:
    """The look at a template when it is loaded ends without its words, and so does rendering with it."""
    (model / "chat_template.jinja").unlink(missing_ok=True)
    with_config(model, "tokenizer_config.json", chat_template=template.replace("MARK", str(mark)))
    try:
        tokenizer = load_tokenizer(model)
        shown = str(tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False))
    except Exception:  # of the sandbox, which has many
        return
    assert "class '" not in shown
    assert "builtins" not in shown
    assert "root:x:0" not in shown


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The source of the service, by file."""
    files = [path for folder in SHIPPED for path in (ROOT / folder).rglob("*.py")]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


class TestSource:
    """What the source of the service does nowhere."""

    def test_no_module_that_runs_what_it_reads(self, trees: dict[str, ast.Module]) -> None:
        found = [(path, name) for path, tree in trees.items() for name in imported(tree) if name in FORBIDDEN_MODULES]
        assert found == []

    def test_no_code_from_text(self, trees: dict[str, ast.Module]) -> None:
        found = [
            (path, node.func.id)
            for path, node in calls(trees)
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
        ]
        assert found == []

    def test_no_archive_is_unpacked(self, trees: dict[str, ast.Module]) -> None:
        """So none can write beside its folder (ZIP slip) or grow without end; archives are only written."""
        found = [
            (path, node.func.attr)
            for path, node in calls(trees)
            if isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS
        ]
        assert found == []
        opened = [
            (path, [ast.literal_eval(mode) for mode in node.args[1:2]])
            for path, node in calls(trees)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "ZipFile"
        ]
        assert [modes for _, modes in opened] == [["w"]]

    def test_tensors_are_loaded_without_objects(self, trees: dict[str, ast.Module]) -> None:
        loads = [(path, node) for path, node in calls(trees) if ast.unparse(node.func) == "torch.load"]
        assert len(loads) == 1
        assert [path for path, node in loads if keywords(node).get("weights_only") is not True] == []

    def test_code_of_repositories_is_never_trusted(self, trees: dict[str, ast.Module]) -> None:
        values = [
            (path, keywords(node)["trust_remote_code"])
            for path, node in calls(trees)
            if "trust_remote_code" in keywords(node)
        ]
        assert len(values) >= 3
        assert {value for _, value in values} == {False}
        weights = [
            (path, keywords(node))
            for path, node in calls(trees)
            if ast.unparse(node.func).endswith("CausalLM.from_pretrained")
        ]
        # A file in GGUF's format, which is packaged with this project, holds no code.
        assert [
            path for path, given in weights if "gguf_file" not in given and given.get("use_safetensors") is not True
        ] == []

    def test_no_shell(self, trees: dict[str, ast.Module]) -> None:
        assert [path for path, node in calls(trees) if keywords(node).get("shell")] == []
        assert [path for path, node in calls(trees) if ast.unparse(node.func) in {"os.system", "os.popen"}] == []


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def calls(trees: dict[str, ast.Module]) -> list[tuple[str, ast.Call]]:
    return [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keywords(node: ast.Call) -> dict[str, Any]:
    """Keyword arguments; values that aren't constants are their source."""
    return {
        each.arg: each.value.value if isinstance(each.value, ast.Constant) else ast.unparse(each.value)
        for each in node.keywords
        if each.arg
    }
