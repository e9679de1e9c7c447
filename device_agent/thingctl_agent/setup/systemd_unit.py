"""The files that make an agent a service: pure text.

Exposure by ``systemd-analyze security``: 1.3 (a test holds 2.0). Left out on purpose:
``ProcSubset=pid`` would hide the boot id, and ``network-online.target`` would keep a device
without a network from starting at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

USER: Final = "thingctl-agent"
CONFIG_DIR: Final = "/etc/thingctl-agent"
CONFIG: Final = f"{CONFIG_DIR}/agent.toml"
PASSWORD: Final = f"{CONFIG_DIR}/password"
SECRETS: Final = (
    CONFIG,
    f"{CONFIG}.old",
    PASSWORD,
    *(f"{CONFIG_DIR}/{name}.pem" for name in ("ca", "cert", "key")),
)
"""Files that the service's user reads and other users do not."""

UNIT: Final = "/etc/systemd/system/thingctl-agent.service"
POLKIT: Final = "/etc/polkit-1/rules.d/50-thingctl-agent.rules"
STATE_DIR: Final = "/var/lib/thingctl-agent"
SYSUSERS: Final = "/etc/sysusers.d/thingctl-agent.conf"
TMPFILES: Final = "/etc/tmpfiles.d/thingctl-agent.conf"
WANTS: Final = "/etc/systemd/system/multi-user.target.wants/thingctl-agent.service"
PROGRAM: Final = "/opt/thingctl-agent/bin/thingctl-agent"
"""Where docs/agent.md installs the agent."""

_CONFIG: Final = """\
# The settings of the agent; docs/agent.md explains each. After a change:
#
#   sudo systemctl restart thingctl-agent

handlers = []

# Built-in actions are off until their table is here.
[actions.ping]
[actions.getInfo]
# [actions.reboot]
# [actions.launchUri]
# [actions.shell]
# commands = { "restart-kiosk" = ["systemctl", "--user", "restart", "kiosk"] }
"""

_UNIT: Final = """\
[Unit]
Description=thingctl agent: answers commands sent over MQTT
After=network.target
# On a device in the field no person resets a start limit.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} run --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=2
WatchdogSec=60
TimeoutStopSec=10
# One malloc arena: threads that come and go would keep memory of their own.
Environment=MALLOC_ARENA_MAX=1

User={user}
Group={user}
StateDirectory=thingctl-agent
StateDirectoryMode=0700
UMask=0077

CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
{devices}ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateUsers=yes
PrivateIPC=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""

_POLKIT: Final = """\
// Lets the agent restart the device: sudo cannot, as the unit has NoNewPrivileges.
polkit.addRule(function(action, subject) {{
    if (subject.user == "{user}" &&
        ["org.freedesktop.login1.reboot",
         "org.freedesktop.login1.reboot-multiple-sessions",
         "org.freedesktop.login1.reboot-ignore-inhibit"].indexOf(action.id) >= 0) {{
        return polkit.Result.YES;
    }}
}});
"""


def unit(program: str, *, devices: Iterable[str] = (), user: str = USER, config: str = CONFIG) -> str:
    """The systemd unit. ``devices``: device files that handlers may use, such as /dev/gpiomem."""
    lines = [f"DeviceAllow={device} rw\n" for device in devices]
    closed = (
        "DevicePolicy=closed\n" + "".join(lines) if lines else "PrivateDevices=yes\nDevicePolicy=closed\n"
    )
    return _UNIT.format(program=program, config=config, user=user, devices=closed)


def polkit_rule(user: str = USER) -> str:
    """The rule that lets the agent's user restart the device."""
    return _POLKIT.format(user=user)


def config_file() -> str:
    """A first ``agent.toml``, in which the settings of a device are then set."""
    return _CONFIG


def devices_of(unit_text: str) -> list[str]:
    """Return the device files that a unit lets handlers use."""
    lines = [line for line in unit_text.splitlines() if line.startswith("DeviceAllow=")]
    return [line.removeprefix("DeviceAllow=").split()[0] for line in lines]


def sysusers(user: str = USER) -> str:
    """The user of the service, for an image: systemd-sysusers makes it at the first boot."""
    return f'u {user} - "thingctl agent" {STATE_DIR} /usr/sbin/nologin\n'


def tmpfiles(user: str = USER) -> str:
    """The group of files that hold secrets, for an image: systemd-tmpfiles sets it at each boot."""
    return "".join(f"z {path} 0640 root {user}\n" for path in SECRETS)
