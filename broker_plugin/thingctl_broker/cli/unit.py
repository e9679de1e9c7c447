"""The files that make a broker a service: pure text.

``systemd-analyze security`` rates the exposure at 1.3; a test holds it below 2.0. The sandbox is that
of the workers' unit in ``configs/cluster``.
"""

from __future__ import annotations

from typing import Final

USER: Final = "thingctl"
CONFIG_DIR: Final = "/etc/thingctl"
CONFIG: Final = f"{CONFIG_DIR}/broker.toml"
TLS: Final = f"{CONFIG_DIR}/tls"
STATE_DIR: Final = "/var/lib/thingctl"
SERVICE: Final = "thingctl.service"
UNIT: Final = f"/etc/systemd/system/{SERVICE}"
WANTED: Final = f"/etc/systemd/system/multi-user.target.wants/{SERVICE}"
SYSUSERS: Final = "/etc/sysusers.d/thingctl.conf"
TMPFILES: Final = "/etc/tmpfiles.d/thingctl.conf"
COMMAND: Final = "/usr/local/bin/thingctl"

FIRST_UNPRIVILEGED_PORT: Final = 1024

_UNIT: Final = """\
[Unit]
Description=thingctl broker: sends commands to devices over MQTT
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} serve --config {config}
Restart=always
RestartSec=2
# The broker reads and checks all executions before it is ready.
TimeoutStartSec=600
WatchdogSec=60
TimeoutStopSec=10
LimitNOFILE=65536

User={user}
Group={user}
StateDirectory=thingctl
StateDirectoryMode=0700
Environment=THINGCTL_DATA_DIR={state}
UMask=0077

{capabilities}NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
PrivateIPC=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
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

_NO_CAPABILITIES: Final = """\
CapabilityBoundingSet=
AmbientCapabilities=
PrivateUsers=yes
"""

# A capability within a user namespace does not reach the host's ports.
_LOW_PORTS: Final = """\
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_BIND_SERVICE
"""

_CONFIG: Final = """\
# The broker's settings; configs/broker.toml in the project explains each. After a change:
#
#   sudo systemctl restart thingctl

data_dir = "{state}"

[mqtt]

[http]
"""


def unit(program: str, *, low_ports: bool = False) -> str:
    """Return the systemd unit. ``low_ports``: the broker listens on a port below 1024."""
    capabilities = _LOW_PORTS if low_ports else _NO_CAPABILITIES
    return _UNIT.format(program=program, config=CONFIG, user=USER, state=STATE_DIR, capabilities=capabilities)


def first_config() -> str:
    """Return a ``broker.toml`` with nothing but the data directory."""
    return _CONFIG.format(state=STATE_DIR)


def sysusers() -> str:
    """Return the file by which systemd makes the user when an image boots."""
    return f'u {USER} - "thingctl broker" {STATE_DIR} -\n'


def tmpfiles(secrets: list[str]) -> str:
    """Return the file by which systemd lets the user read ``secrets`` (paths) when an image boots."""
    return "".join(f"z {path} 0640 root {USER} -\n" for path in secrets)
