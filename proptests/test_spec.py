"""Tests of graph files: the values that are read, and the errors for wrong ones."""

from __future__ import annotations

import json
import re
from contextlib import closing
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.resources.reservations import Reservations
from graphquake.harness.spec.bounds import ONLY_IF_NAMED
from graphquake.harness.spec.graph import built_in_graphs, load_graph
from graphquake.harness.spec.plan import default_faults
from graphquake.harness.spec.serves import parse_serves
from graphquake.harness.spec.table import Table
from graphquake.harness.spec.templates.environment import check_environment
from graphquake.harness.spec.templates.words import expand

from support.made import spec_of

pytestmark = pytest.mark.simulated

HEAD_DIM = 64
ENTRY = "http://127.0.0.1:{port.http}"


def wrong(**changes: Any) -> str:
    """Return the error about a graph with these top-level keys."""
    with pytest.raises(InputError) as raised:
        spec_of(**changes)
    return str(raised.value)


def roles(**decode: Any) -> dict[str, Any]:
    """Return roles in which decode has these keys."""
    return {
        "frontend": {"command": "f", "entry": ENTRY},
        "prefill": {"command": "p"},
        "decode": {"command": "d"} | decode,
    }


def test_the_page_of_graph_files_has_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference page has every key of a graph file, and none that the reader does not know."""
    known: set[str] = set()
    has = Table._has

    def noted(table: Table, key: str) -> bool:
        known.add(table.key_path(key))
        return has(table, key)

    monkeypatch.setattr(Table, "_has", noted)
    spec_of(
        roles=roles(ready={"get": ENTRY}, listed={"get": ENTRY, "item": "x", "roles": ["decode"]}),
        steps={"own": {"do": "x"}, "other": {"signal": "SIGHUP", "role": "decode"}},
        promises={name: {} for name in ONLY_IF_NAMED},
    )
    pods = {"frontend": {"entry": "http://{address.http}"}, "prefill": {}, "decode": {}}
    spec_of(roles=pods, kubernetes={"namespace": "lab", "deployment": "graph"})
    keys = {
        re.sub(r"^(roles\.\w+|steps\.\w+|load|promises|kubernetes)\.", "", key)
        for key in known - {f"roles.{role}" for role in roles()} - {"steps.own", "steps.other"}
    }
    tables = {key.rpartition(".")[0] for key in keys}
    path = Path(__file__).parent.parent / "docs/reference/graph-file.md"
    # The page begins with a table of the words of templates: these are not keys.
    keys_of_the_file = path.read_text(encoding="utf-8").partition("## The file")[2]
    cells = re.findall(r"^\| (`.*?`) \|", keys_of_the_file, re.MULTILINE)
    assert {key for cell in cells for key in re.findall("`(.+?)`", cell)} == keys - tables


@pytest.mark.parametrize("name", sorted(built_in_graphs()))
def test_every_ready_made_graph_can_be_read(name: str) -> None:
    """A ready-made graph has the name of its file, an entry, and at most 50 lines."""
    spec = load_graph(name)
    assert spec.name == name
    assert spec.entry_role.entry
    assert len(spec.path.read_text().splitlines()) <= 50


@pytest.mark.parametrize("name", ["vllm-serve", "dynamo-vllm"])
def test_graphs_of_vllm_draw_every_fault_and_need_no_download(name: str) -> None:
    """A search draws every kind of fault. A kill may aim at the engine. The model folder has the shape that vLLM needs."""
    spec = load_graph(name)
    role = next(role for role in spec.roles if "engine" in role.children)
    assert set(spec.faults_at(role.name)) == set(default_faults())
    assert role.dies_with == ("engine",)
    folder = spec.path.parent / "tiny"
    assert "{graph_dir}/tiny" in role.command
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    # The weights are random, so every id of the vocabulary comes up.
    assert set(words.values()) == set(range(shape["vocab_size"]))
    # Kernels of attention are made for heads of this size. Smaller ones are not supported everywhere.
    assert shape["head_dim"] == shape["hidden_size"] // shape["num_attention_heads"] == HEAD_DIM


def test_vllm_workers_share_a_gpu_if_they_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one GPU, both workers get it with `--share-gpus`. Their caches are in the home of the user, and nothing else is."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("HOME", "/of/the/user")
    layout = Layout(load_graph("dynamo-vllm", share_gpus=True), tmp_path)
    with closing(Reservations()) as reservations:
        layout.reserve(reservations)
        workers = list(layout.of_role("worker"))
        found = [layout.environment(one) for one in workers]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in found] == ["0", "0"]
    in_home = {name for name, value in found[0].items() if value.startswith("/of/the/user")}
    assert in_home == {"VLLM_CACHE_ROOT", "TRITON_CACHE_DIR"}
    assert len({env["DYN_SYSTEM_PORT"] for env in found}) == len(workers)
    alone = Layout(load_graph("dynamo-vllm"), tmp_path)
    with closing(Reservations()) as reservations, pytest.raises(GraphError) as raised:
        alone.reserve(reservations)
    assert "--share-gpus" in str(raised.value)


def test_there_are_ready_made_graphs() -> None:
    """The ready-made graphs include those for Dynamo and vLLM."""
    assert set(built_in_graphs()) >= {
        "dynamo-agg", "dynamo-disagg", "dynamo-agg-mocker", "dynamo-disagg-mocker", "dynamo-disagg-bootstrap", "dynamo-vllm", "vllm-serve",
    }  # fmt: skip


def test_errors_name_file_key_found_and_expected() -> None:
    """Each mistake in a graph file gives one error that names the key."""
    assert wrong(roles=roles(replicas="two")) == (
        'made.toml: roles.decode.replicas: found "two", expected a whole number of at least 1 and at most 256'
    )
    assert wrong(serves="frontend and prefil") == (
        'made.toml: serves: names "prefil", which is not a role; did you mean "prefill"?'
    )
    assert wrong(rols={}) == 'made.toml: rols: is not a known key; did you mean "roles"?'
    assert (
        wrong(lease_s=True)
        == "made.toml: lease_s: found True, expected a number of at least 0 and at most 3600"
    )
    assert wrong(lease_s=float("nan")).startswith("made.toml: lease_s: found nan")
    assert (
        wrong(roles=roles(comand="x"))
        == 'made.toml: roles.decode.comand: is not a known key; did you mean "command"?'
    )
    assert wrong(roles=roles(like="decod")).startswith(
        'made.toml: roles.decode.like: names "decod", which is not another role'
    )
    assert wrong(roles=roles(dies_with=["engine"])).endswith(
        "which is not one of the children of this role"
    )
    assert wrong(roles=roles(ready={"get": "http://x", "body": "("})).startswith(
        "made.toml: roles.decode.ready.body: is not a valid regular"
    )
    assert wrong(promises={"error_windw": {}}).endswith('did you mean "error_window"?')
    assert wrong(promises={"error_window": {"in_flight": "perhaps"}}).endswith(
        "expected one of like others, must survive, may fail"
    )
    assert wrong(promises={"answers": {"oracle": "exact"}}).endswith(
        'expected "none" or "module:function"'
    )
    assert wrong(load={"model": "tiny", "rate_per_s": 0}).startswith(
        "made.toml: load.rate_per_s: found 0, expected"
    )
    assert wrong(roles={"a": {"command": "x"}}, serves="a").endswith(
        "expected one that clients talk to"
    )


def test_the_words_of_templates_are_checked_when_the_file_is_read() -> None:
    """A template with an unknown word is an error when the file is read."""
    assert 'has "{modl}"; did you mean "model"?' in wrong(roles=roles(command="run {modl}"))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"env": {"HF_HOME": "${NO_SUCH_VARIABLE}"}}, "env.HF_HOME"),
        ({"versions": {"cuda": "${NO_SUCH_VARIABLE}/nvcc"}}, "versions.cuda"),
        ({"roles": roles(command="${NO_SUCH_VARIABLE}/serve")}, "roles.decode.command"),
        ({"roles": roles(env={"A": "${NO_SUCH_VARIABLE}"})}, "roles.decode.env.A"),
        ({"roles": roles(ready={"get": "http://${NO_SUCH_VARIABLE}"})}, "roles.decode.ready.get"),
    ],
)
def test_the_environment_is_checked_before_a_launch(
    changes: dict[str, object], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph file can be read where its environment variables are not set, but its graph can't be launched there."""
    spec = spec_of(**changes)
    with pytest.raises(InputError) as error:
        check_environment(spec)
    assert str(error.value) == (
        f"made.toml: {key}: asks for ${{NO_SUCH_VARIABLE}}, which is not set in your environment"
    )
    monkeypatch.setenv("NO_SUCH_VARIABLE", "here")
    check_environment(spec)


def test_the_users_environment_is_filled_in_where_the_file_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A template takes ${NAME} from the environment and {word} from Graphquake."""
    monkeypatch.setenv("GQ_TEST_HOME", "/models")
    assert expand("${GQ_TEST_HOME}/{model}", {"model": "tiny"}.__getitem__) == "/models/tiny"


def test_like_takes_all_keys_of_the_other_role_except_its_own() -> None:
    """A role takes all keys from the role that it is `like`, except its own, over one level."""
    both = roles(like="prefill", replicas=2)
    both["prefill"] |= {"env": {"A": "1"}, "stop_s": 3}
    del both["decode"]["command"]
    decode = spec_of(roles=both).role("decode")
    assert (decode.command, decode.replicas, decode.env, decode.stop_s) == ("p", 2, {"A": "1"}, 3.0)


def test_a_bound_knows_whether_the_file_gave_it() -> None:
    """A bound tells whether it comes from the file or is a default."""
    promises = spec_of(promises={"error_window": {"window_s": 4}}).promises
    assert promises.source("error_window.window_s") == "file"
    assert promises.source("recovery.first_ok_s") == "default"


def test_a_file_that_is_not_a_graph_is_one_clear_error(tmp_path: Path) -> None:
    """A missing file, a file that is not valid TOML and an unknown name each give one clear error."""
    with pytest.raises(InputError, match=r"nowhere\.toml: no such file"):
        load_graph(str(tmp_path / "nowhere.toml"))
    (tmp_path / "bad.toml").write_text("graph = ")
    with pytest.raises(InputError, match=r"bad\.toml: is not valid TOML"):
        load_graph(str(tmp_path / "bad.toml"))
    with pytest.raises(InputError, match='did you mean "dynamo-disagg"'):
        load_graph("dynamo-disag")


NAMES = ("a", "b", "c", "d")
expressions = st.recursive(
    st.sampled_from(NAMES),
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
        lambda t: f"({t[0]} {t[1]} {t[2]})"
    ),
    max_leaves=8,
)


@given(expressions)
def test_serves_is_evaluated_as_python_would(text: str) -> None:
    """A `serves` expression means what Python would make of it, for every set of roles that are up."""
    serves = parse_serves(text, NAMES)
    for up in chain.from_iterable(combinations(NAMES, n) for n in range(5)):
        expected = eval(text, {name: name in up for name in NAMES})  # noqa: S307
        assert serves.holds(up) == expected
        assert serves.holds_by(set(up).__contains__) == expected


@given(st.text(alphabet="ab() andor", max_size=20))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    """A text that is not a `serves` expression is a ValueError, and no other error."""
    try:
        serves = parse_serves(text, ("a", "b"))
    except ValueError as error:
        assert str(error)
    else:
        assert serves.holds({"a", "b"})
