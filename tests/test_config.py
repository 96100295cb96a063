"""The configuration reports every mistake at once and shows itself without secrets."""

import dataclasses
from pathlib import Path

import pytest

from edge.config import KEYS, Config, example, load, reference, to_toml
from edge.errors import ConfigError


def mistakes(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def test_every_command_works_without_a_file() -> None:
    assert load(None) == Config()


def test_every_default_is_within_its_own_limits(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(Config(), redact=False))
    assert load(path) == Config()


def test_the_example_has_every_key_and_loads_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(example())
    assert load(path) == Config()
    assert all(f"{key.partition('.')[2]} = " in example() for key in KEYS)


def test_the_reference_explains_every_key_and_names_no_host() -> None:
    table = reference()
    for key, about in KEYS.items():
        assert f"| `{key}` |" in table
        assert about.doc in table
    assert "from the host name" in table


def test_the_page_beside_the_units_is_the_reference_of_this_version() -> None:
    page = Path(__file__).parents[1] / "systemd" / "configuration.md"
    assert page.read_text() == reference(), "microedge config reference > systemd/configuration.md"


def test_a_file_and_overrides_set_values_of_every_type(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[camera]\nrate_hz = 100\n[mqtt]\nhost = "broker"\ntls = true\n')
    config = load(
        path, ["camera.rate_hz=120.5", "event.max_duration_ms = 500", "mqtt.tls=false", "device.id='lab-03'",
               "device.purpose=a study, with = signs"],
    )  # fmt: skip
    assert config.camera.rate_hz == 120.5
    assert config.event.max_duration_ms == 500
    assert (config.mqtt.host, config.mqtt.tls) == ("broker", False)
    assert (config.device.id, config.device.purpose) == ("lab-03", "a study, with = signs")


def test_a_whole_number_serves_as_a_float(tmp_path: Path) -> None:
    assert isinstance(load(None, ["camera.rate_hz=100"]).camera.rate_hz, float)


def test_every_mistake_is_reported_at_once_with_key_value_and_limit(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        'purpos = 1\n[camera]\nrate_hz = 5000\nwidth = "wide"\nrat_hz = 3\n'
        "[spot]\nthreshold = true\n[leds]\nred_pin = 17\n",
        "log.level=loud", "event.min_duration_ms=300", "face.lost_after", "nonsense",
    )  # fmt: skip
    assert sorted(found) == sorted([
        "purpos: unknown section or key; did you mean device.purpose?",
        "camera.rate_hz = 5000: must be 10..400 Hz",
        'camera.width = "wide": must be a whole number, 64..8192 px',
        "camera.rat_hz: unknown key; did you mean camera.rate_hz?",
        "spot.threshold = true: must be a number, 0..1",
        "leds.red_pin = 17: is used twice: leds.capture_pin has this pin too",
        '--set: log.level = "loud": must be one of info, debug, warning, error',
        "--set: event.min_duration_ms = 300: must be below event.max_duration_ms = 200",
        "--set: face.lost_after: has no value: write face.lost_after=VALUE",
        "--set: nonsense: unknown key; the sections are " + ", ".join(Config.__dataclass_fields__),
    ])  # fmt: skip


@pytest.mark.parametrize("bad", ["a+b", "a/b", "a#b", "a b", "", "a" * 65, "ä"])
def test_a_device_id_that_no_topic_can_carry_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        load(None, [f"device.id={bad}"])


@pytest.mark.parametrize("bad", ["a/+", "#", "/a", "a/", "$SYS", "a//b", "a b"])
def test_a_topic_prefix_that_is_no_topic_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"mqtt\.topic_prefix"):
        load(None, [f"mqtt.topic_prefix={bad}"])


@pytest.mark.parametrize("bad", ["nan", "inf", "-0.1", "1.1", "half", ""])
def test_a_number_outside_its_range_or_none_at_all_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"spot\.threshold = .*0\.\.1"):
        load(None, [f"spot.threshold={bad}"])


def test_absent_leds_may_share_minus_one_but_the_capture_led_must_exist() -> None:
    leds = load(None, ["leds.red_pin=-1", "leds.green_pin=-1", "leds.blue_pin=-1"]).leds
    assert leds.red_pin == leds.blue_pin == -1
    with pytest.raises(ConfigError, match=r"leds\.capture_pin = -1: must be 0\.\.27"):
        load(None, ["leds.capture_pin=-1"])


def test_three_keys_on_one_pin_are_two_mistakes() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, ["leds.red_pin=5", "leds.green_pin=5", "leds.blue_pin=5"])
    assert str(caught.value).count("used twice") == 2


def test_a_password_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '[mqtt]\npassword = "hunter2"\n', "mqtt.password=hunter3")
    assert len(found) == 2
    assert all("mqtt.password_file" in line and "hunter" not in line for line in found)


def test_secrets_are_not_shown_unless_asked_for() -> None:
    config = load(None, ["mqtt.username=anna"])
    assert "anna" not in to_toml(config)
    assert 'username = "anna"' in to_toml(config, redact=False)


def test_a_secret_of_the_wrong_type_is_not_repeated(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "[mqtt]\nusername = 271828\n") == ["mqtt.username = (not shown): must be text"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["mqtt.ca_file=/ca.pem"], ["mqtt.ca_file is set but mqtt.tls = false: must be true to use it"]),
        (
            ["mqtt.certificate_file=/a.pem", "mqtt.key_file=/a.key"],
            [
                "mqtt.certificate_file is set but mqtt.tls = false: must be true to use it",
                "mqtt.key_file is set but mqtt.tls = false: must be true to use it",
            ],
        ),
        (
            ["mqtt.tls=true", "mqtt.certificate_file=/a.pem"],
            [
                "mqtt.certificate_file is set but mqtt.key_file is empty: a certificate and its key go together"
            ],
        ),
        (
            ["mqtt.tls=true", "mqtt.key_file=/a.key"],
            [
                "mqtt.key_file is set but mqtt.certificate_file is empty: a certificate and its key go together"
            ],
        ),
        (
            ["mqtt.check_hostname=false"],
            ["mqtt.check_hostname = false but mqtt.tls = false: there is no certificate to check"],
        ),
        (["mqtt.password_file=/secret"], ["mqtt.password_file is set but mqtt.username is empty"]),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: list[str], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, settings)
    assert str(caught.value).splitlines() == [f"--set: {line}" for line in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["b:1884"]', ("b:1884",)),
        ("b,c:1884", ("b", "c:1884")),
        ("b , 'c'", ("b", "c")),
        ("[::1]:1884,[fe80::1%eth0]", ("[::1]:1884", "[fe80::1%eth0]")),
        ("", ()),
        ("[]", ()),
    ],
)
def test_further_brokers_are_given_as_a_toml_list_or_by_commas(text: str, expected: tuple[str, ...]) -> None:
    assert load(None, [f"mqtt.alternates={text}"]).mqtt.alternates == expected


def test_a_list_survives_being_shown_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    config = load(None, ["mqtt.alternates=b,[::1]:1884"])
    path.write_text(to_toml(config, redact=False))
    assert load(path) == config


def test_each_wrong_text_of_a_list_is_named(tmp_path: Path) -> None:
    each = "must be NAME or NAME:PORT, an IPv6 address in brackets"
    for value, mistake in (
        ('["b", "c:99999"]', f'"c:99999" {each}'),
        ('["b", 3]', f"3 {each}"),
        ('[""]', f'"" {each}'),
        ('["mqtt://b"]', f'"mqtt://b" {each}'),
        ('["::1"]', f'"::1" {each}'),
        ('["b", "b"]', '"b" is there twice'),
    ):
        assert mistakes(tmp_path, f"[mqtt]\nalternates = {value}\n") == [
            f"mqtt.alternates = {value}: {mistake}"
        ]
    assert mistakes(tmp_path, "[mqtt]\nalternates = 3\n") == [
        "mqtt.alternates = 3: must be a list of texts, up to 8, each NAME or NAME:PORT, an IPv6 address in brackets"
    ]
    many = ",".join("abcdefghi")
    assert "holds 9: must be up to 8" in mistakes(tmp_path, "", f"mqtt.alternates={many}")[0]


@pytest.mark.parametrize(
    "good", ["broker", "broker_1.local", "192.0.2.7", "::1", "[::1]", "fe80::1%eth0", "bücher.example"]
)
def test_a_host_is_a_name_or_an_address(good: str) -> None:
    assert load(None, [f"mqtt.host={good}"]).mqtt.host == good


@pytest.mark.parametrize("bad", ["mqtt://broker", "broker:1883", "a b", "", "[::1]:1883", "-x", "a/b"])
def test_a_host_with_a_scheme_or_a_port_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"mqtt\.host = .* without mqtt:// and without a port"):
        load(None, [f"mqtt.host={bad}"])


def test_a_login_written_into_an_address_is_not_repeated(tmp_path: Path) -> None:
    text = '[mqtt]\nhost = "mqtt://anna:hunter2@broker"\nalternates = ["anna:hunter2@b"]\n'
    found = mistakes(tmp_path, text)
    assert len(found) == 2
    assert all("hunter2" not in line and "anna" not in line for line in found)


@pytest.mark.parametrize("bad", ["mqtt", "", "/a b", "/a?b", "/a#b"])
def test_a_websocket_path_that_no_request_can_carry_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"mqtt\.websocket_path = .*starts with /"):
        load(None, [f"mqtt.websocket_path={bad}"])


def test_home_assistant_may_be_told_nothing() -> None:
    assert load(None, ["mqtt.discovery_prefix="]).mqtt.discovery_prefix == ""
    with pytest.raises(ConfigError, match=r"mqtt\.discovery_prefix"):
        load(None, ["mqtt.discovery_prefix=a/#"])


def test_limits_are_written_out() -> None:
    with pytest.raises(ConfigError, match=r"outbox\.max_events = 0: must be 1\.\.10000000 events"):
        load(None, ["outbox.max_events=0"])


def test_text_with_control_characters_is_refused(tmp_path: Path) -> None:
    assert "mqtt.password_file" in mistakes(tmp_path, '[mqtt]\npassword_file = "a\\u0007b"\n')[0]


def test_a_section_given_as_a_value_is_explained(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "camera = 3\n") == [
        "camera: must be a section: write [camera] on a line of its own"
    ]


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, expected in (
        (tmp_path / "absent.toml", "no such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (binary, "is not valid TOML"),
    ):
        with pytest.raises(ConfigError, match=expected) as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_invalid_toml_says_where(tmp_path: Path) -> None:
    assert "line 2" in mistakes(tmp_path, "[camera]\nrate_hz = = 3\n")[0]
    assert "is not valid TOML" in mistakes(tmp_path, "a = " + "[" * 5000)[0]


def test_a_configuration_cannot_be_changed_once_read() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().camera.rate_hz = 5.0  # type: ignore[misc]
