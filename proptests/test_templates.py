"""Tests of the templates of a graph file: words, lists, repeated arguments and lines, files, and the order of the start."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquake.harness.errors import GraphError, InputError
from graphquake.harness.processes.layout import Layout
from graphquake.harness.processes.resources.reservations import Reservations
from graphquake.harness.processes.start import start_in_order
from graphquake.harness.spec.graph import load_graph, read_graph
from graphquake.harness.spec.replica import Replica
from graphquake.harness.spec.roles.role import RoleSpec
from graphquake.harness.spec.templates.words import expand, words_in

from support.made import spec_of

pytestmark = pytest.mark.simulated

ENTRY = "http://127.0.0.1:{port.http}"


def roles(**proxy: Any) -> dict[str, Any]:
    """Two servers behind a proxy that has these keys."""
    return {
        "proxy": {"command": "p", "entry": ENTRY} | proxy,
        "server": {"command": "s --port {port.http} --rpc {port.rpc}", "replicas": 2},
    }


def laid_out(folder: Path, **proxy: Any) -> Layout:
    """The layout of two servers behind a proxy that has these keys. Server 0 has the ports 1 and 3, server 1 has 2 and 4."""
    layout = Layout(spec_of(serves="proxy and server", roles=roles(**proxy)), folder)
    with closing(Reservations()) as reservations:
        layout.reserve(reservations)
    for one, http in ((Replica("server", 0), 1), (Replica("server", 1), 2)):
        layout.replicas[one].ports = {"http": http, "rpc": http + 2}
    return layout


def argv(folder: Path, command: str) -> list[str]:
    """The arguments of the proxy."""
    layout = laid_out(folder, command=command)
    return layout.command(layout.replicas[Replica("proxy", 0)])


def wrong(**proxy: Any) -> str:
    """The error about a proxy with these keys."""
    with pytest.raises(InputError) as raised:
        spec_of(serves="proxy and server", roles=roles(**proxy))
    return str(raised.value)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("{server.port.http}", ["1,2"]),
        ("{server.0.port.http}", ["1"]),
        ("{server.1.address.rpc}", ["127.0.0.1:4"]),
        ("{server.1.host}", ["127.0.0.1"]),
        ("{server.address.http}", ["127.0.0.1:1,127.0.0.1:2"]),
        ("{server.index}", ["0,1"]),
        ("{server.address.http|http://}", ["http://127.0.0.1:1,http://127.0.0.1:2"]),
        ("'{server.port.http|p|; }'", ["p1; p2"]),
        ("--worker-urls http://{server.*.address.http}/v1", ["--worker-urls", "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]),
        ("--server={server.*.index}={server.*.port.http}", ["--server=0=1", "--server=1=2"]),
        ("{host} {index}", ["127.0.0.1", "0"]),
    ],
)  # fmt: skip
def test_a_command_names_the_replicas_of_another_role(
    tmp_path: Path, argument: str, expected: list[str]
) -> None:
    """A word names one replica, all replicas as a list, or each in turn. An argument with `*` is repeated."""
    assert argv(tmp_path, f"p {argument}") == ["p", *expected]


def test_an_own_address_is_host_and_port(tmp_path: Path) -> None:
    """`{address.NAME}` is `{host}:{port.NAME}` of the replica itself."""
    layout = laid_out(tmp_path)
    server = layout.replicas[Replica("server", 1)]
    assert layout.fill(server, "{address.http}") == layout.fill(server, "{host}:{port.http}")
    assert layout.fill(server, "{address.http}") == "127.0.0.1:2"


@pytest.mark.parametrize(
    "text",
    [
        '{"kv_connector": "NixlConnector", "ports": {"a": [1]}}',
        "events { }", "events {}", "{{ jinja }}", "{{python}}", "${a:-b}", "{3}", "{a b}", "x{2,}", "${port.http}",
    ],
)  # fmt: skip
def test_other_braces_pass_unchanged(tmp_path: Path, text: str) -> None:
    """Braces around a text that does not look like a word stay as they are, in commands and in files."""
    layout = laid_out(tmp_path, files={"f": text}, env={"A": text})
    proxy = layout.replicas[Replica("proxy", 0)]
    assert layout.environment(proxy)["A"] == text
    assert (tmp_path / "files/proxy-0/f").read_text() == text


@given(st.text(alphabet=r"{}$\ab.*|/ -0", max_size=30))
def test_a_text_without_words_is_not_changed(text: str) -> None:
    """Only words, and words after a backslash, are changed."""
    if not words_in(text) and "\\" not in text and "$" not in text:
        assert expand(text, lambda _: "changed") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{sever.port.http}", 'has "{sever.port.http}"; did you mean "server.port.http"?'),
        ("{server.0.prot.http}", 'has "{server.0.prot.http}"; did you mean "server.0.port.http"?'),
        ("{server.*.adress.http}", 'did you mean "server.*.address.http"?'),
        ("{server.adress.http|a|b}", 'did you mean "server.address.http|a|b"?'),
        ("{prot.http}", 'did you mean "port.http"?'),
        ("{hots}", 'did you mean "host"?'),
        ("{file.proxy.cgf}", 'did you mean "file.proxy.cfg"?'),
        ("{server.2.port.http}", 'has "{server.2.port.http}", but the graph has server 0 to server 1'),
        ("{proxy.1.port.http}", "but the graph has proxy 0"),
        ("{server.*.host}{proxy.*.host}", 'has * for server and proxy in "{server.*.host}{proxy.*.host}", expected one role'),
    ],
)  # fmt: skip
def test_an_unknown_word_is_one_error(text: str, said: str) -> None:
    """An unknown word in a command or a file is an error that names the key, and the word that was probably meant."""
    files = {"proxy.cfg": f"first\n{text}"}
    assert wrong(command=f"p {text}", files={"proxy.cfg": "x"}).startswith(
        "made.toml: roles.proxy.command: "
    )
    error = wrong(files=files)
    assert error.startswith("made.toml: roles.proxy.files.proxy.cfg: line 2: ")
    assert error.endswith(said)


def test_nothing_is_repeated_elsewhere() -> None:
    """`*` in a URL or in a variable is an error that names the list to write instead."""
    assert wrong(env={"A": "{server.*.port.http}"}) == (
        'made.toml: roles.proxy.env.A: has "{server.*.port.http}", but * repeats an argument of a command or a line of a file; '
        'a list is "{server.port.http}"'
    )


def test_a_command_that_cannot_be_split_is_one_error() -> None:
    """A quote that is not closed is an error about the key `command`."""
    assert wrong(command="p 'a").startswith(
        "made.toml: roles.proxy.command: can't be split as a shell splits it: No closing quotation"
    )


CONFIG = r"""# ${HOME} and \{index} stay
pid {run_dir}/proxy.pid;
events { }
http {
  upstream servers {
    server {server.*.address.http};  # {server.*.index}
  }
  server { listen {address.http}; }
}
"""


def test_a_file_has_a_line_for_each_replica(tmp_path: Path) -> None:
    """A launch writes the file of each replica. A line with `*` is there once for each replica of that role."""
    layout = laid_out(
        tmp_path, command="nginx -c {file.conf/my-nginx.conf}", files={"conf/my-nginx.conf": CONFIG}
    )
    proxy = layout.replicas[Replica("proxy", 0)]
    (_, _, path) = layout.command(proxy)
    assert path == str(tmp_path / "files/proxy-0/conf/my-nginx.conf")
    lines = Path(path).read_text().splitlines()
    assert lines[:4] == [
        "# ${HOME} and {index} stay",
        f"pid {tmp_path}/proxy.pid;",
        "events { }",
        "http {",
    ]
    assert [line.partition("#")[2] for line in lines[5:7]] == [" 0", " 1"]
    assert lines[7:9] == ["  }", f"  server {{ listen 127.0.0.1:{proxy.ports['http']}; }}"]


def test_the_ports_that_only_a_file_names_are_reserved(tmp_path: Path) -> None:
    """A port that stands in a file only, as port or as address, is drawn like any other."""
    text = "{port.admin} {server.*.address.peer}"
    layout = Layout(spec_of(serves="proxy", roles=roles(files={"f": text})), tmp_path)
    with closing(Reservations()) as reservations:
        layout.reserve(reservations)
    assert set(layout.replicas[Replica("proxy", 0)].ports) == {"http", "admin"}
    servers = [layout.replicas[Replica("server", index)] for index in range(2)]
    assert [set(one.ports) for one in servers] == [{"http", "rpc", "peer"}] * 2
    admin = layout.replicas[Replica("proxy", 0)].ports["admin"]
    expected = [f"{admin} 127.0.0.1:{one.ports['peer']}" for one in servers]
    assert (tmp_path / "files/proxy-0/f").read_text().splitlines() == expected


def test_a_template_file_lies_beside_the_graph_file(tmp_path: Path) -> None:
    """A file may be a template file beside the graph file. The document keeps its text, so an old run can do without the file."""
    (tmp_path / "my.in").write_text("port {port.http}\n")
    file = tmp_path / "my.toml"
    file.write_text(
        'graph = "g"\nload.model = "m"\n[roles.a]\ncommand = "a {file.a.conf}"\nentry = "http://{address.http}"\n'
        'files."a.conf" = { template = "my.in" }\n[roles.b]\nlike = "a"\nentry = "http://x"\nreplicas = 2'
    )
    with pytest.raises(InputError, match="found 2 roles with an entry"):
        load_graph(str(file))
    file.write_text(file.read_text().partition("[roles.b]")[0])
    spec = load_graph(str(file))
    assert spec.role("a").files == {"a.conf": "port {port.http}\n"}
    (tmp_path / "my.in").unlink()
    assert read_graph("old", spec.document, file).roles == spec.roles
    with pytest.raises(InputError) as raised:
        load_graph(str(file))
    assert str(raised.value) == (
        f'my.toml: roles.a.files.a.conf.template: found "my.in", expected a text file in {tmp_path}: No such file or directory'
    )


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../b", "a b", ".a", "a/"])
def test_a_file_stays_in_its_folder(name: str) -> None:
    """The name of a file can't lead out of the replica's folder."""
    assert "is not the name of a file" in wrong(files={name: "x"})


# ------------------------------------------------------------------------------------------------------ start order


def test_needs_is_checked() -> None:
    """`needs` names roles that exist, and no roles need each other in a circle."""
    assert wrong(needs=["sever"]) == (
        'made.toml: roles.proxy.needs: names "sever", which is not a role; did you mean "server"?'
    )
    assert wrong(needs=["proxy"]) == "made.toml: roles: can never start: proxy needs proxy"
    both = roles(needs=["server"])
    both["server"]["needs"] = ["proxy"]
    with pytest.raises(InputError, match=r"can never start: (proxy|server) needs \w+ needs \1$"):
        spec_of(serves="proxy", roles=both)


async def started(needs: dict[str, tuple[str, ...]], failing: str = "") -> list[str]:
    """What happens when roles with these needs start: `+a` when a begins to start, `a` when it is ready."""
    seen: list[str] = []

    async def start(role: RoleSpec) -> None:
        seen.append(f"+{role.name}")
        await asyncio.sleep(0)
        if role.name == failing:
            raise GraphError(f"{role.name} died")
        seen.append(role.name)

    made = [RoleSpec(name, "x", needs=needed) for name, needed in needs.items()]
    try:
        await start_in_order(made, start)
    except GraphError as error:
        seen.append(str(error))
    return seen


def test_a_missing_program_names_what_installs_it() -> None:
    """If the program of a role is not installed, the error of the launch ends with the role's `install`. Another error does not."""
    installed = RoleSpec("router", "router", install="pip install router")
    for said, hint in (
        ("its log:\n  No module named router", "\n  To install it: pip install router"),
        ('cannot run "router": No such file or directory', "\n  To install it: pip install router"),
        ("not ready within 30 s", ""),
    ):

        async def fail(role: RoleSpec, said: str = said) -> None:
            raise GraphError(said)

        with pytest.raises(GraphError) as caught:
            asyncio.run(start_in_order([installed], fail))
        assert str(caught.value) == said + hint


def test_a_role_starts_when_those_that_it_needs_are_ready() -> None:
    """A role waits for each role that it needs. Roles that need nothing start at once, side by side."""
    seen = asyncio.run(started({"c": ("b", "a"), "b": ("a",), "a": (), "d": ()}))
    assert seen == ["+a", "+d", "a", "d", "+b", "b", "+c", "c"]
    assert asyncio.run(started({"a": (), "b": ()})) == ["+a", "+b", "a", "b"]


def test_a_role_does_not_start_without_those_that_it_needs() -> None:
    """If a role fails, that is the error of the launch, and the roles that need it are not started."""
    assert asyncio.run(started({"b": ("a",), "a": ()}, "a")) == ["+a", "a died"]
