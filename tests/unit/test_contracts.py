"""What is said in two places says the same, and the rules of the house hold in every file."""

import ast
import functools
import importlib
import inspect
import ipaddress
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.plugins.action import ActionBase
from ansible.plugins.filter.core import ternary
from ansible_collections.mailfleet.starttls.plugins.filter.fleet import FilterModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    CERTIFICATE_CHECKS,
    DIRECTIONS,
    MODES,
    SENDS,
    EnforcedDomain,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import (
    INBOUND,
    OUTBOUND,
    RENEWED,
    SEND_ONLY,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import ACCESS_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import SECRET_OPTIONS, ModuleAction
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import SEVERITIES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.gateway_access import GatewayAccess, environment_names
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import STEP_RESULTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import OBSERVED
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import GATEWAY_STEPS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.formats import FORMATS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import VARIABLES
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.mailfleet.starttls.plugins"
PLUGINS = sorted(path for path in (ROOT / "plugins").rglob("*.py") if path.name != "__init__.py")
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py") if path.name != "__init__.py")
ROLES = sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))


def relative(path):
    return str(path.relative_to(ROOT))


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


# --- roles -----------------------------------------------------------------------------------------------------------


def role_options(role):
    """(entry point, option, its specification) of a role."""
    for entry_point, spec in load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"].items():
        for name, option in spec.get("options", {}).items():
            yield entry_point, name, option


def role_defaults(role):
    path = ROOT / "roles" / role / "defaults/main.yml"
    return (load(path) or {}) if path.exists() else {}


def environment():
    """Jinja with the filters that roles use: those of the collection, and some of Ansible."""
    jinja = NativeEnvironment()
    jinja.filters.update(
        ternary=ternary,
        dict2items=lambda given: [{"key": key, "value": value} for key, value in given.items()],
        items2dict=lambda given: {one["key"]: one["value"] for one in given},
    )
    jinja.filters.update(
        {f"mailfleet.starttls.{name}": function for name, function in FilterModule().filters().items()}
    )
    return jinja


HOST_NAME = "mx1"


def without_variables(default, **facts):
    """The default of a host where the user has set none of the variables that it comes from. facts: what it has besides its name."""
    if isinstance(default, dict):
        return {name: without_variables(value, **facts) for name, value in default.items()}
    if not isinstance(default, str):
        return default
    return environment().from_string(default).render(inventory_hostname=HOST_NAME, **facts)


def is_expression(value):
    return "{{" in json.dumps(value)


def test_every_role_is_specified():
    assert sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()) == ROLES


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_specification(role):
    defaults = role_defaults(role)
    for entry_point, name, option in role_options(role):
        where = f"{role}, {entry_point}: {name}"
        if "default" in option:
            assert name in defaults, where
            assert without_variables(defaults[name]) == option["default"], where
        elif name in defaults:
            assert is_expression(defaults[name]), f"{where} has a default that the specification does not name"


@pytest.mark.parametrize(
    ("given", "checks"),
    [
        ("versions", ["versions"]), ("versions, injection", ["versions", "injection"]), (["dane"], ["dane"]), ("", []), (None, []),
        ("versions\ninjection\n", ["versions", "injection"]),
    ],
)  # fmt: skip
def test_checks_may_be_text_with_commas_or_lines(given, checks):
    default = role_defaults("verify")["verify_checks"]
    assert environment().from_string(default).render(starttls_checks=given) == checks


RUN = {"group_names": [], "groups": {}, "hostvars": {HOST_NAME: {}}, "ansible_play_hosts_all": [HOST_NAME]}


@pytest.mark.parametrize("empty", ["", None])
@pytest.mark.parametrize("role", ROLES)
def test_an_empty_variable_is_one_that_is_not_set(role, empty):
    """AWX gives '' for a question that nobody answered, and ansible-core 2.19 reads null. No starttls_outside_host means: no messages."""
    facts = dict.fromkeys(VARIABLES.keys() - {"starttls_outside_host"}, empty)
    for name, default in role_defaults(role).items():
        assert without_variables(default, **RUN, **facts) == without_variables(default, **RUN), name


@pytest.mark.parametrize("given", [0, "0"])
@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("gateway_queue_timeout", "starttls_queue_timeout"), ("mail_server_queue_timeout", "starttls_queue_timeout"),
        ("certificate_min_days_left", "starttls_certificate_min_days_left"),
        ("verify_min_days_left", "starttls_min_days_left"), ("verify_warn_days_left", "starttls_warn_days_left"),
    ],
)  # fmt: skip
def test_zero_is_an_answer(option, variable, given):
    default = next(defaults[option] for defaults in map(role_defaults, ROLES) if option in defaults)
    assert str(without_variables(default, **RUN, **{variable: given})) == "0"


@pytest.mark.parametrize("given", [False, "false"])
@pytest.mark.parametrize(
    ("role", "option"),
    [("gateway", "validate_certs"), ("verify", "require_trusted"), ("certificate", "allow_self_signed")],
)
def test_no_is_an_answer(role, option, given):
    default = role_defaults(role)[f"{role}_{option}"]
    assert str(without_variables(default, **RUN, **{f"starttls_{option}": given})).lower() == "false"


@pytest.mark.parametrize("role", ["gateway", "mail_server"])
def test_the_certificate_to_install_is_the_one_of_the_role_certificate(role, documentation):
    """Option by option the same variables with the same defaults, and nothing that names a certificate without a variable."""
    given, own = role_defaults(role)[f"{role}_install"], role_defaults("certificate")
    assert set(given) == set(documentation["mail_server_tls"]["doc"]["options"]["install"]["suboptions"])
    assert given == {name: own[name if name in own else f"certificate_{name}"] for name in given}
    made = without_variables(given)
    assert {name for name, value in made.items() if value not in ("", [])} == {
        "names",
        "allow_self_signed",
        "replace",
        "owner",
        "acme_install",
        "check_tlsa",
    }
    assert (made["names"], made["allow_self_signed"]) == ([HOST_NAME], False)


@pytest.mark.parametrize("role", ["gateway", "mail_server"])
def test_the_read_expects_what_the_proof_expects(role, documentation):
    given, own = role_defaults(role)[f"{role}_handshake"], role_defaults("verify")
    assert set(given) == set(documentation["mail_server_info"]["doc"]["options"]["handshake"]["suboptions"])
    assert {name: given[name] for name in given if name != "name"} == {
        name: own[f"verify_{name}"] for name in given if name != "name"
    }
    name = environment().from_string(given["name"])
    assert name.render(inventory_hostname=HOST_NAME) == HOST_NAME
    assert name.render(inventory_hostname=HOST_NAME, starttls_hostname="mx1.example.") == "mx1.example"


@pytest.mark.parametrize("role", ["gateway", "mail_server"])
def test_what_depends_on_the_host_has_no_default_in_the_specification(role):
    found = {name: option for _entry_point, name, option in role_options(role)}
    for name in (f"{role}_install", f"{role}_handshake"):
        assert (found[name]["type"], "default" in found[name]) == ("dict", False)


@pytest.mark.parametrize("role", ROLES)
def test_defaults_come_from_variables_that_there_are(role):
    text = (ROOT / "roles" / role / "defaults/main.yml").read_text()
    assert sorted(set(re.findall(r"starttls_\w+", text)) - set(VARIABLES)) == []


def test_every_variable_is_read_somewhere():
    """By a role's defaults, a playbook or the controller's engine; README lists no others."""
    places = [
        *ROOT.glob("roles/*/defaults/*.yml"),
        *ROOT.glob("playbooks/*.yml"),
        *ROOT.glob("plugins/plugin_utils/**/*.py"),
    ]
    text = "".join(path.read_text() for path in places if path.name != "variables.py")
    assert [name for name in VARIABLES if not re.search(rf"\b{name}\b", text)] == []
    used = set(re.findall(r"\bstarttls_\w+", "".join(path.read_text() for path in ROOT.glob("playbooks/*.yml"))))
    assert sorted(used - set(VARIABLES)) == []


PRODUCTS_IN_YAML = re.compile(rf"\b({'|'.join(PRODUCTS)})\b", re.IGNORECASE)


def test_a_play_that_may_end_the_run_pins_its_strategy():
    """Under ANSIBLE_STRATEGY=free neither any_errors_fatal nor run_once counts."""
    for path in ROOT.glob("playbooks/*.yml"):
        for play in yaml.safe_load(path.read_text()):
            if re.search(r"any_errors_fatal|run_once|serial", yaml.safe_dump(play)):
                assert play.get("strategy") == "ansible.builtin.linear", f"{path.name}: {play['name']}"


def test_no_playbook_or_role_names_a_product():
    """Descriptions may, and the default kind of a gateway does."""
    found = []
    for path in (
        *ROOT.glob("playbooks/*.yml"),
        *ROOT.glob("roles/*/tasks/*.yml"),
        *ROOT.glob("roles/*/defaults/*.yml"),
    ):
        found += [(relative(path), line) for line in path.read_text().splitlines() if PRODUCTS_IN_YAML.search(line)]
    assert found == [
        ("roles/gateway/defaults/main.yml", """gateway_kind: "{{ starttls_kind | default('postfix', true) }}\""""),
        (
            "roles/gateway/defaults/main.yml",
            """gateway_config_dir: "{{ starttls_config_dir | default('/etc/haraka', true) }}\"""",
        ),
    ]


def test_no_choice_names_a_product(documentation):
    specs = [option for role in ROLES for _, _, option in role_options(role)]
    specs += [option for module in MODULES for option in documentation[module]["doc"]["options"].values()]
    assert [option for option in specs if set(option.get("choices") or ()) & set(PRODUCTS)] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_specified(role):
    specified = {name for _entry_point, name, _option in role_options(role)}
    assert set(role_defaults(role)) <= specified


@pytest.mark.parametrize("role", ROLES)
def test_entry_points_agree_about_an_option(role):
    seen = {}
    for entry_point, name, option in role_options(role):
        facts = {key: value for key, value in option.items() if key != "description"}
        assert seen.setdefault(name, facts) == facts, f"{role}, {entry_point}: {name}"


TYPES = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}


def is_choice(value, option):
    """Whether an option may have this value, or a list option each of these."""
    choices = option.get("choices")
    return not choices or all(one in choices for one in (value if isinstance(value, list) else [value]))


@pytest.mark.parametrize("role", ROLES)
def test_options_are_described_and_defaults_are_of_their_type(role):
    for entry_point, name, option in role_options(role):
        where = f"{role}, {entry_point}: {name}"
        assert option.get("description"), where
        assert option["type"] in TYPES, where
        if "default" in option:
            assert type(option["default"]) is TYPES[option["type"]], where
            assert is_choice(option["default"], option), where


@pytest.mark.parametrize("role", ROLES)
def test_variables_begin_with_the_roles_name(role):
    names = {name for _entry_point, name, _option in role_options(role)} | set(role_defaults(role))
    for path in (ROOT / "roles" / role).glob("tasks/*.yml"):
        for task in load(path):
            names |= set(task.get("vars", {})) | set(task.get("ansible.builtin.set_fact", {}))
            names |= {task["register"]} if "register" in task else set()
    assert [name for name in sorted(names) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_tasks(role):
    for entry_point in load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]:
        assert (ROOT / "roles" / role / "tasks" / f"{entry_point}.yml").exists(), entry_point


# --- modules ---------------------------------------------------------------------------------------------------------


class _CapturedError(Exception):
    pass


def runtime_spec(module, monkeypatch):
    """The argument spec that a module, or the action plugin that stands for it, checks its options with."""
    captured = {}

    def capture(_self, argument_spec, *_args, **_kwargs):
        captured.update(argument_spec)
        raise _CapturedError

    monkeypatch.setattr(AnsibleModule, "__init__", capture)
    loaded = importlib.import_module(f"{PACKAGE}.modules.{module}")
    if hasattr(loaded, "main"):
        run = loaded.main
    else:
        action = importlib.import_module(f"{PACKAGE}.action.{module}").ActionModule
        monkeypatch.setattr(ActionBase, "run", lambda *_args, **_kwargs: {})
        monkeypatch.setattr(ActionBase, "validate_argument_spec", capture)
        plugin = object.__new__(action)
        plugin._task = SimpleNamespace(async_val=0)
        run = functools.partial(action.run.__wrapped__, plugin)
    with pytest.raises(_CapturedError):
        run()
    return captured


def normal(options, below):
    """Options as comparable facts, whether they come from documentation or from code."""
    return {
        name: {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "required": bool(option.get("required", False)),
            "choices": option.get("choices"),
            "default": option.get("default"),
            "aliases": sorted(option.get("aliases") or []),
            "options": normal(option.get(below) or {}, below),
        }
        for name, option in options.items()
    }


@pytest.fixture(scope="module")
def documentation(tmp_path_factory):
    """What ansible-doc, with the doc fragments, says of each module."""
    directory = tmp_path_factory.mktemp("ansible-doc")
    names = [f"mailfleet.starttls.{name}" for name in MODULES]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "-t", "module", "--json", *names],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / ".lab/ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(directory)},
        capture_output=True, text=True, timeout=900, check=True,
    )  # fmt: skip
    return {name.rpartition(".")[2]: found for name, found in json.loads(done.stdout).items()}


@pytest.mark.parametrize("module", MODULES)
def test_the_documentation_says_what_the_module_takes(module, documentation, monkeypatch):
    documented = normal(documentation[module]["doc"]["options"], "suboptions")
    assert documented == normal(runtime_spec(module, monkeypatch), "options")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_documented_whole(module, documentation):
    found = documentation[module]
    assert found["doc"]["module"] == module
    assert found["doc"]["short_description"]
    assert not found["doc"]["short_description"].endswith(".")
    assert {"check_mode", "diff_mode", "idempotent", "action_group"} <= set(found["doc"]["attributes"])
    assert found["return"]
    tasks = yaml.safe_load(found["examples"])
    used = {key for task in tasks for key in task if key.startswith("mailfleet.starttls.")}
    assert f"mailfleet.starttls.{module}" in used


@pytest.mark.parametrize("module", MODULES)
def test_examples_use_options_that_there_are(module, documentation):
    for task in yaml.safe_load(documentation[module]["examples"]):
        for key, value in task.items():
            if key.startswith("mailfleet.starttls."):
                options = documentation[key.rpartition(".")[2]]["doc"]["options"]
                arguments = value or {}  # a task may take every default
                assert set(arguments) <= set(options), task["name"]
                for name, given in arguments.items():
                    assert is_expression(given) or is_choice(given, options[name]), task["name"]


GATEWAY_MODULES = [
    "enforced_tls_domain",
    "gateway_info",
    "gateway_tls",
    "inbound_tls_mode",
    "inbound_tls_mode_info",
    "outbound_tls_mode",
]


def test_every_module_is_in_the_action_group():
    groups = load("meta/runtime.yml")["action_groups"]
    assert list(groups) == ["starttls", "gateway"]
    assert sorted(groups["starttls"]) == MODULES


def test_the_gateways_modules_are_a_group_of_their_own(documentation, monkeypatch):
    """Those, and no others, that take every option which says what kind of gateway it is and how it is reached."""
    group = load("meta/runtime.yml")["action_groups"]["gateway"]
    assert sorted(group) == GATEWAY_MODULES
    assert len(group) == len(set(group))
    specs = {module: runtime_spec(module, monkeypatch) for module in MODULES}
    assert [module for module in MODULES if "gateway" in specs[module]] == GATEWAY_MODULES
    for module in GATEWAY_MODULES:
        assert ACCESS_SPEC.items() <= specs[module].items()
        assert ("require_without_evidence" in specs[module]) is (not module.endswith("_info"))
    info = normal(documentation["inbound_tls_mode_info"]["doc"]["options"], "suboptions")
    assert set(info) == {
        *ACCESS_SPEC,
        "domains",
    }  # nothing more of the others' options, so group defaults fit each of them


API_OPTIONS = ("api_key", "api_password", "api_url", "api_user")


def test_secrets_of_an_api_are_never_shown_and_come_from_the_controller_alone(monkeypatch):
    """A fallback of a spec is looked up on the host that runs the module, which is not the administrator's."""
    secrets = {name for name, option in ACCESS_SPEC.items() if option.get("no_log")}
    assert secrets == {"api_password", "api_key"}
    assert {name for product in PRODUCTS.values() for name in product.api_options} == set(API_OPTIONS)
    for module in MODULES:
        with monkeypatch.context() as patch:
            assert [name for name, option in runtime_spec(module, patch).items() if "fallback" in option] == []
    for module in GATEWAY_MODULES:
        assert issubclass(importlib.import_module(f"{PACKAGE}.action.{module}").ActionModule, GatewayAccess)


@pytest.mark.parametrize("module", GATEWAY_MODULES)
def test_each_variable_of_the_environment_is_documented(module, documentation):
    options = documentation[module]["doc"]["options"]
    for name in API_OPTIONS:
        text = " ".join(options[name]["description"])
        for variable in environment_names(name, "name"):
            assert f"E({variable})" in text, name
            assert f"`{variable}`" in VARIABLES[f"starttls_{name}"].default


@pytest.mark.parametrize("action", MODULES)
def test_an_action_plugin_has_the_options_of_its_module(action):
    """Both read ARGUMENT_SPEC of the module's file, which is also the documentation. One that only runs the module reads none."""
    loaded = importlib.import_module(f"{PACKAGE}.action.{action}")
    if not issubclass(loaded.ActionModule, ModuleAction):
        assert loaded.ARGUMENT_SPEC is importlib.import_module(f"{PACKAGE}.modules.{action}").ARGUMENT_SPEC


@pytest.mark.parametrize("action", MODULES)
def test_an_action_is_guarded(action):
    run = importlib.import_module(f"{PACKAGE}.action.{action}").ActionModule.run
    assert inspect.getsource(run).strip().startswith("@guarded\n")


def secrets_of(options):
    """The names of the options that Ansible does not show, at any depth."""
    for name, option in options.items():
        yield from [name] if option.get("no_log") else []
        yield from secrets_of(option.get("options") or {})


def test_the_controller_knows_each_secret_option(monkeypatch):
    found = set()
    for module in MODULES:
        with monkeypatch.context() as patch:
            found |= set(secrets_of(runtime_spec(module, patch)))
    assert found == SECRET_OPTIONS


def test_choices_that_the_controller_knows(documentation):
    for module in ("starttls_probe", "tls_report", "tls_verdict"):
        assert documentation[module]["doc"]["options"]["fail_on"]["choices"] == list(SEVERITIES)
    outputs = documentation["tls_report"]["doc"]["options"]["outputs"]["suboptions"]
    assert outputs["format"]["choices"] == list(FORMATS)


def test_every_action_plugin_has_a_module():
    assert {path.stem for path in (ROOT / "plugins/action").glob("*.py")} == set(MODULES)


# --- the words -------------------------------------------------------------------------------------------------------


def test_delivery_modes_are_the_same_everywhere(documentation, monkeypatch):
    options = documentation["inbound_tls_mode"]["doc"]["options"]
    spec = runtime_spec("inbound_tls_mode", monkeypatch)
    role = {name: option for _, name, option in role_options("gateway")}["gateway_email_configs"]["options"]
    for choices in (
        options["delivery_mode"]["choices"],
        options["email_configs"]["suboptions"]["delivery_mode"]["choices"],
        spec["delivery_mode"]["choices"],
        spec["email_configs"]["options"]["delivery_mode"]["choices"],
        role["delivery_mode"]["choices"],
    ):
        assert choices == list(MODES)
    assert set(role) == set(options["email_configs"]["suboptions"])


def test_the_words_for_enforced_domains_are_the_same_everywhere(documentation, monkeypatch):
    options = documentation["enforced_tls_domain"]["doc"]["options"]
    spec = runtime_spec("enforced_tls_domain", monkeypatch)
    role = {name: option for _, name, option in role_options("gateway")}["gateway_enforced_domains"]["options"]
    places = (
        options,
        options["enforced_domains"]["suboptions"],
        spec,
        spec["enforced_domains"]["options"],
        role,
    )
    for place in places:
        assert place["direction"]["choices"] == list(DIRECTIONS)
        assert place["certificate_check"]["choices"] == list(CERTIFICATE_CHECKS)
    assert set(role) == set(options["enforced_domains"]["suboptions"]) == {
        "domain", "direction", "certificate_check", "servers", "state",
    }  # fmt: skip
    for name, option in role.items():
        documented = options["enforced_domains"]["suboptions"][name]
        facts = ("type", "elements", "choices")
        assert [option.get(fact) for fact in facts] == [documented.get(fact) for fact in facts], name
        assert bool(option.get("required")) is bool(documented.get("required")), name


def test_what_an_enforced_domain_holds_is_what_the_module_takes(monkeypatch):
    spec = runtime_spec("enforced_tls_domain", monkeypatch)["enforced_domains"]["options"]
    assert {*EnforcedDomain("a.example", "outbound").to_dict(), "state"} == set(spec)
    assert set(EnforcedDomain("a.example", "inbound").to_dict()) == {"domain", "direction"}
    assert {name for name, option in spec.items() if option.get("required")} == {"domain", "direction"}


def test_the_words_for_the_outbound_side_are_the_same_everywhere(documentation, monkeypatch):
    options = documentation["outbound_tls_mode"]["doc"]["options"]
    spec = runtime_spec("outbound_tls_mode", monkeypatch)
    role = {name: option for _, name, option in role_options("gateway")}
    for name, words in (("accept", ACCEPTS), ("send", SENDS)):
        assert options[name]["choices"] == spec[name]["choices"] == list(words)
        assert role[f"gateway_{name}"]["choices"] == ["unchanged", *words]
    assert set(OutboundTls().to_dict()) <= set(options)
    assert SENDS == MODES


@pytest.mark.parametrize("module", ["gateway_tls", "gateway_info"])
def test_the_whole_state_has_the_options_of_its_parts(documentation, monkeypatch, module):
    spec = runtime_spec(module, monkeypatch)
    for part, names in (
        ("inbound_tls_mode", {"email_configs"}),
        ("outbound_tls_mode", {"accept", "send", "mail_servers"}),
        ("enforced_tls_domain", {"enforced_domains"}),
    ):
        of_part = runtime_spec(part, monkeypatch)
        assert {name: spec[name] for name in names} == {name: of_part[name] for name in names}
    assert spec["state"]["choices"] == ["present", "plaintext", "absent"]
    assert spec["enforced_ca_file"] == runtime_spec("enforced_tls_domain", monkeypatch)["ca_file"]


def test_every_word_of_a_choice_is_explained(documentation):
    for module, name, words in (
        ("inbound_tls_mode", "delivery_mode", MODES),
        ("enforced_tls_domain", "direction", DIRECTIONS),
        ("enforced_tls_domain", "certificate_check", CERTIFICATE_CHECKS),
        ("outbound_tls_mode", "accept", ACCEPTS),
        ("outbound_tls_mode", "send", SENDS),
    ):
        text = " ".join(documentation[module]["doc"]["options"][name]["description"])
        assert [word for word in words if f"V({word})" not in text] == [], name


def test_the_words_for_a_mail_server_are_the_same_everywhere(documentation):
    options = documentation["mail_server_tls"]["doc"]["options"]
    role = {name: option for _, name, option in role_options("mail_server")}
    for name, words, more in (
        ("inbound", (*INBOUND, SEND_ONLY, RENEWED), ["unchanged"]),
        ("outbound", OUTBOUND, ["unchanged"]),
    ):
        assert options[name]["choices"] == list(words)
        assert role[f"mail_server_{name}"]["choices"] == [*more, *words]
    for name in ("kind", "address", "port", "timeout", "relax", "only_relax", "require_without_evidence"):
        assert (role[f"mail_server_{name}"]["type"], role[f"mail_server_{name}"]["default"]) == (
            options[name]["type"],
            options[name]["default"],
        )
    assert options["certificate"]["default"] == CERTIFICATE
    assert documentation["tls_certificate"]["doc"]["options"]["path"]["default"] == CERTIFICATE


INTERNAL = {"bundle", "bundle_content", "ca_content", "only_recover", "test_listeners", "listener_ports"}
"""Options of the modules that read or change a host which the roles do not set in a read or a change."""


@pytest.mark.parametrize(("file", "module"), [("read", "mail_server_info"), ("change", "mail_server_tls")])
def test_the_role_of_a_mail_server_passes_every_option_on(documentation, file, module):
    task, *_proof = load(f"roles/mail_server/tasks/{file}.yml")
    given = task[f"mailfleet.starttls.{module}"]
    assert set(given) == set(documentation[module]["doc"]["options"]) - INTERNAL
    for name in set(given) - {
        "inbound", "outbound", "min_tls", "certificate", "private_key", "prove_later", "find_send_only",
    }:  # fmt: skip
        variable = "uninstall_keep" if name == "keep" else name
        assert given[name] == f"{{{{ mail_server_{variable} }}}}"
    jinja = environment()
    for name, words in (("inbound", (*INBOUND, SEND_ONLY)), ("outbound", OUTBOUND)):
        for choice in ("unchanged", *words):
            made = jinja.from_string(given[name]).render({f"mail_server_{name}": choice, "omit": "OMIT"})
            assert made == ("OMIT" if choice == "unchanged" else choice)
    for floor in ("", "TLSv1.2", "none"):
        made = jinja.from_string(given["min_tls"]).render({"mail_server_min_tls": floor, "omit": "OMIT"})
        assert made == (floor or "OMIT")
    for path in ("", "/x"):
        for name in ("certificate", "private_key"):
            made = jinja.from_string(given[name]).render({f"mail_server_{name}_path": path, "omit": "OMIT"})
            assert made == (path or "OMIT")


def test_the_gateway_role_has_the_defaults_of_its_modules(documentation):
    options = documentation["gateway_tls"]["doc"]["options"]
    role = {name: option for _, name, option in role_options("gateway")}
    names = {"kind": "gateway"}
    for name in (
        "state", "kind", "reinjection_port", "require_without_evidence", "address", "port", "timeout", "config_dir", "validate_certs",
        "queue_timeout",
    ):  # fmt: skip
        option = options[names.get(name, name)]
        assert role[f"gateway_{name}"]["default"] == option["default"], name
        assert role[f"gateway_{name}"].get("choices") == option.get("choices"), name
    for name in ("tls_filter", "api_url", "api_user", "api_password", "api_key", "ca_path"):
        assert options[name].get("default") is None, name
        assert role[f"gateway_{name}"]["default"] == "", name  # which is as good as nothing, see below


GATEWAY_TASKS = {
    "read": "gateway_info",
    "accept": "gateway_tls",
    "modes": "gateway_tls",
    "recover": "gateway_tls",
    "remove": "gateway_tls",
}
"""File of the role -> the one module that it calls."""


def gateway_task(file):
    """What one file of the role gives to its module."""
    [block] = load(f"roles/gateway/tasks/{file}.yml")
    assert block["module_defaults"] == {"group/mailfleet.starttls.gateway": "{{ gateway_access }}"}
    [task] = block["block"]
    return task[f"mailfleet.starttls.{GATEWAY_TASKS[file]}"]


def gateway_options(file, names, **variables):
    """Options of the module as the role makes them from its variables. What is left out is OMIT."""
    jinja = environment()
    given = {**role_defaults("gateway"), **{f"gateway_{name}": value for name, value in variables.items()}}
    given = {name: without_variables(value) for name, value in given.items()} | {"omit": "OMIT"}
    own = load("roles/gateway/vars/main.yml")
    given["gateway_outbound"] = jinja.from_string(own["gateway_outbound"]).render(given)
    passed = own["gateway_access"] if file == "access" else gateway_task(file)
    return {name: jinja.from_string(passed[name]).render(given) for name in names}


def test_the_gateway_role_says_how_it_is_reached_in_one_place():
    own = load("roles/gateway/vars/main.yml")
    assert set(own) == {"gateway_access", "gateway_outbound"}
    access = own["gateway_access"]
    assert set(access) == set(ACCESS_SPEC)
    for name, expression in access.items():
        variable = "gateway_kind" if name == "gateway" else f"gateway_{name}"
        optional = "default" not in ACCESS_SPEC[name]
        assert expression == (
            f"{{{{ {variable} | ternary({variable}, omit) }}}}" if optional else f"{{{{ {variable} }}}}"
        ), name
    for file in GATEWAY_TASKS:
        assert set(gateway_task(file)) & set(ACCESS_SPEC) == set(), file


def test_the_gateway_role_passes_every_option_on(documentation):
    options = {
        module: set(documentation[module]["doc"]["options"]) - set(ACCESS_SPEC) - INTERNAL
        for module in GATEWAY_TASKS.values()
    }
    # The read looks up the domains of the email configs; these would be further ones.
    assert set(gateway_task("read")) == options["gateway_info"] - {"domains"}
    # A file takes the options of its part, and both parts are the whole change.
    accept, modes = (gateway_task(file) for file in ("accept", "modes"))
    given = {
        "inbound",
        "min_tls",
        "certificate",
        "certificate_source",
        "private_key",
        "more_on_host",
        "install",
        "digests",
    }
    assert set(accept) == given
    remove = gateway_task("remove")
    assert set(remove) == {"state", "email_configs", "certificate", "keep", "queue_timeout", "digests"}
    assert remove["state"] == "absent"
    assert set(accept) | set(modes) | {"keep"} == options["gateway_tls"]
    assert set(accept) & set(modes) == {"digests", "min_tls"}  # of the accepting side, and of the own transports
    assert gateway_task("recover") == {"only_recover": True}
    for file in ("read", "accept", "modes"):
        for name, expression in gateway_task(file).items():
            variable = {
                "certificate": "gateway_certificate_path",
                "private_key": "gateway_private_key_path",
                "keep": "gateway_uninstall_keep",
            }.get(name, f"gateway_{name}")
            assert variable in expression or name in ("accept", "send"), (file, name)


def test_the_gateway_role_reads_what_it_changes():
    """A plan would be of another change if the two were given anything else."""
    read = gateway_task("read")
    for file in ("accept", "modes"):
        given = gateway_task(file)
        of_the_change = {"digests", "require_without_evidence", "queue_timeout"}
        assert {name: read.get(name) for name in set(given) - of_the_change} == {
            name: given[name] for name in set(given) - of_the_change
        }, file


def test_the_results_of_the_gateway_role_are_what_the_run_looks_at():
    registered = {}
    for file in GATEWAY_TASKS:
        [block] = load(f"roles/gateway/tasks/{file}.yml")
        registered[file] = block["block"][0]["register"]
    assert registered == {
        "read": "gateway_observed", "accept": "gateway_accept_result", "modes": "gateway_result", "recover": "gateway_recovered",
        "remove": "gateway_removed",
    }  # fmt: skip
    assert registered["read"] in OBSERVED
    assert {step: STEP_RESULTS[step][0] for step in GATEWAY_STEPS} == {
        "accept": registered["accept"], "modes": registered["modes"], "stop_accepting": registered["accept"],
        "remove": registered["remove"],
    }  # fmt: skip


@pytest.mark.parametrize("role", ["gateway", "mail_server"])
def test_a_role_alone_reads_plans_and_changes(role):
    """One unreadable host does not end the read of the others: it is unknown in the plan."""
    _stated, _fault, read, undo, plan, stop, change, *peers = load(f"roles/{role}/tasks/main.yml")
    assert [one["ansible.builtin.include_tasks"] for one in peers] == {"gateway": [], "mail_server": ["peers.yml"]}[
        role
    ]
    assert undo["ansible.builtin.include_tasks"] == "recovered.yml"
    for journal, check_mode, wanted in (
        (None, False, False),
        ({"path": "/x"}, False, True),
        ({"path": "/x"}, True, False),
    ):
        found = environment().compile_expression(undo["when"])(
            **{f"{role}_observed": {"journal": journal}}, ansible_check_mode=check_mode
        )
        assert bool(found) is wanted
    undone = load(f"roles/{role}/tasks/recovered.yml")
    assert [one["ansible.builtin.import_tasks"] for one in undone] == ["recover.yml", "read.yml"]
    files = {"gateway": "modes.yml", "mail_server": "change.yml"}
    assert (read["ansible.builtin.import_tasks"], change["ansible.builtin.import_tasks"]) == ("read.yml", files[role])
    given = plan["mailfleet.starttls.tls_plan"]
    assert (given["only_these_hosts"], plan["run_once"], given["fail"]) == (True, True, False)
    assert (stop["when"], stop["run_once"]) == (f"{plan['register']}.stops", True)
    # What the change is given comes from this plan, not from that of a playbook.
    assert f"{plan['register']}.run.hosts[inventory_hostname]" in change["vars"][f"{role}_digests"]
    assert given["observed"] == [{"gateway": "gateway_observed", "mail_server": "mail_server_observed"}[role]]
    for fail_on, check_mode in (("never", True), ("blocked", False)):
        assert environment().from_string(given["fail_on"]).render(ansible_check_mode=check_mode) == fail_on
    [task] = load(f"roles/{role}/tasks/read.yml")
    task = task.get("block", [task])[0]
    assert (task["ignore_errors"], task["ignore_unreachable"]) == (True, True)


def test_the_gateway_role_omits_what_is_not_said():
    for file in ("read", "modes"):
        for name, words in (("accept", ACCEPTS), ("send", SENDS)):
            for choice in ("unchanged", *words):
                made = gateway_options(file, [name], **{name: choice})[name]
                assert made == ("OMIT" if choice == "unchanged" else choice)
    for file in ("read", "accept"):
        for choice in ("unchanged", *INBOUND):
            made = gateway_options(file, ["inbound"], inbound=choice)["inbound"]
            assert made == ("OMIT" if choice == "unchanged" else choice)
        for path in ("", "/x"):
            assert gateway_options(file, ["certificate"], certificate_path=path)["certificate"] == (path or "OMIT")
    for name in ("api_url", "api_user", "api_password", "api_key", "ca_path"):
        for value, expected in (("", "OMIT"), ("/x", "/x")):
            assert gateway_options("access", [name], **{name: value})[name] == expected


@pytest.mark.parametrize(
    ("variables", "made"),
    [
        ({}, ["OMIT", "opportunistic", ["192.0.2.1"]]),
        ({"accept": "both"}, ["both", "opportunistic", ["192.0.2.1"]]),
        ({"accept": "both", "send": "unchanged"}, ["both", "OMIT", ["192.0.2.1"]]),
        ({"send": "unchanged"}, ["OMIT", "OMIT", "OMIT"]),
        ({"accept": "both", "kind": "haraka"}, ["OMIT", "OMIT", "OMIT"]),
    ],
)
@pytest.mark.parametrize("file", ["read", "modes"])
def test_the_outbound_side_is_left_alone_without_a_word_and_without_the_capability(file, variables, made):
    names = ["accept", "send", "mail_servers"]
    given = gateway_options(file, names, mail_servers=["192.0.2.1"], **variables)
    assert [given[name] for name in names] == made


@pytest.mark.parametrize(
    ("state", "ca_file", "domains", "made"),
    [
        ("present", "", [], [[], "OMIT"]),
        ("present", "/ca.pem", [], [[], "OMIT"]),
        ("present", "/ca.pem", ["x"], [["x"], "/ca.pem"]),
        ("present", "", ["x"], [["x"], "OMIT"]),
        ("absent", "", ["x"], ["OMIT", "OMIT"]),
    ],
)
@pytest.mark.parametrize("file", ["read", "modes"])
def test_outbound_enforced_domains_stay_when_tls_is_switched_off(file, state, ca_file, domains, made):
    names = ["enforced_domains", "enforced_ca_file"]
    given = gateway_options(file, names, state=state, enforced_ca_file=ca_file, enforced_domains=domains)
    assert [given[name] for name in names] == made


# --- the source ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PLUGINS, ids=relative)
def test_files_begin_with_the_copyright(path):
    lines = path.read_text().splitlines()
    if path.parent.name == "modules":
        assert lines.pop(0) == "#!/usr/bin/python"
    assert lines[:3] == [
        "# Copyright: (c) 2026, the mailfleet.starttls authors",
        "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
        "# SPDX-License-Identifier: GPL-3.0-or-later",
    ]


ON_TARGETS = [path for path in PLUGINS if path.relative_to(ROOT / "plugins").parts[0] in ("modules", "module_utils")]


@pytest.mark.parametrize("path", ON_TARGETS, ids=relative)
def test_what_runs_on_targets_is_python_3_9(path):
    ast.parse(path.read_text(), str(path), feature_version=(3, 9))


@pytest.mark.parametrize("path", ON_TARGETS, ids=relative)
def test_what_runs_on_targets_needs_nothing_else(path):
    allowed = {*sys.stdlib_module_names, "ansible", "ansible_collections"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] in allowed, name
            assert "plugin_utils" not in name, name


@pytest.mark.parametrize("path", PLUGINS, ids=relative)
def test_nothing_depends_on_assert(path):
    found = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    assert found == [], "python -O leaves assert statements out"


def test_the_engine_does_not_know_ansible():
    knows = [relative(path) for path in ON_TARGETS if "from ansible.module_utils" in path.read_text()]
    assert [path for path in knows if path.startswith("plugins/module_utils/")] == [
        f"plugins/module_utils/ansible_{name}.py" for name in ("gateway", "gateway_host", "glue", "peers", "server")
    ]


# --- names -----------------------------------------------------------------------------------------------------------

WATCHED_ENDINGS = {
    "com", "org", "net", "edu", "gov", "mil", "info", "biz", "io", "dev", "app", "cloud", "email", "online",
    "site", "eu", "de", "at", "ch", "uk", "us", "ca", "au", "fr", "nl", "be", "it", "es", "pt", "pl", "cz",
    "se", "no", "dk", "fi", "ru", "ua", "cn", "jp", "kr", "in", "br", "mx", "ai", "co", "me", "tv", "lan",
    "corp", "internal", "intranet",
}  # fmt: skip
EXAMPLES = re.compile(r"(?:.+\.)?(?:example\.(?:com|org|net)|test|example|invalid|localhost)")
PROJECTS = (
    "ansible.com", "contributor-covenant.org", "debian.org", "exim.org", "github.com", "gnu.org", "ietf.org",
    "json-schema.org",
    "keepachangelog.com", "letsencrypt.org", "microsoft.com", "openssl.org", "postfix.org", "python.org",
    "readthedocs.io", "rfc-editor.org", "semver.org", "spdx.org", "w3.org",
)  # fmt: skip
NETWORKS = [
    ipaddress.ip_network(text)
    for text in (
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
        "127.0.0.0/8",
        "::1",
        "0.0.0.0",
        "::",
    )
]
HOST = re.compile(r"(?<![\w./$-])(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+([a-z]{2,})(?![\w(-])(?!\.\w)", re.IGNORECASE)
ADDRESS = re.compile(
    r"(?<![\w.:-])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f]*)(?![\w:])(?!\.\d)"
)


def foreign_names(text):
    """Names and addresses that may belong to somebody."""
    text = text.replace("https://", " ").replace("http://", " ").replace("@", " ")
    for match in HOST.finditer(text):
        name = match.group(0).lower()
        real = match.group(1).lower() in WATCHED_ENDINGS and not EXAMPLES.fullmatch(name)
        if real and not any(name == project or name.endswith(f".{project}") for project in PROJECTS):
            yield name
    for match in ADDRESS.finditer(text):
        try:
            address = ipaddress.ip_address(match.group(0))
        except ValueError:
            continue
        if not any(address in network for network in NETWORKS):
            yield str(address)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see mail.customer.com.", ["mail.customer.com"]),
        ("trace@company.de, x", ["company.de"]),
        ("https://www.acme.io/path", ["www.acme.io"]),
        ("servers: [8.8.8.8, 192.0.2.1, 2a00::1, 2001:db8::5]", ["8.8.8.8", "2a00::1"]),
        ("mx.example.com mail.fleet.test a.example https://www.python.org/x.html tests/x.py ansible.builtin.copy", []),
        ("127.0.0.1:10125, [::1]:25, 0.0.0.0, 12:30:45, version 1.2.3, host::587", []),
    ],
)
def test_the_check_for_real_names_finds_them(text, found):
    assert list(foreign_names(text)) == found


def texts():
    """Every text that people read: documents, roles, playbooks, and the documentation inside plugins."""
    for pattern in (
        "*.md",
        "*.yml",
        "docs/**/*",
        "roles/**/*",
        "playbooks/**/*",
        "meta/*",
        "molecule/**/*.yml",
        "awx/**/*",
    ):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                yield relative(path), path.read_text(encoding="utf-8", errors="replace")
    for path in PLUGINS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
                "DOCUMENTATION", "EXAMPLES", "RETURN", "ACTION_GROUP",
            ):  # fmt: skip
                yield f"{relative(path)}: {node.targets[0].id}", ast.literal_eval(node.value)


def test_nobody_is_named():
    found = {where: sorted(set(foreign_names(text))) for where, text in texts()}
    assert {where: names for where, names in found.items() if names} == {}


# --- the collection --------------------------------------------------------------------------------------------------


def test_galaxy():
    galaxy = load("galaxy.yml")
    assert (galaxy["namespace"], galaxy["name"]) == ("mailfleet", "starttls")
    assert re.fullmatch(
        r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", galaxy["version"]
    )
    assert galaxy["dependencies"] == {}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_newer_than_the_collection(module, documentation):
    numbers = [
        tuple(map(int, text.split("-")[0].split(".")))
        for text in (documentation[module]["doc"]["version_added"], load("galaxy.yml")["version"])
    ]
    assert numbers[0] <= numbers[1]


def test_ansible_versions():
    assert load("meta/runtime.yml")["requires_ansible"] == ">=2.16.0"
