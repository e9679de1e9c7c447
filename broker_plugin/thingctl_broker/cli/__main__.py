"""``python -m thingctl_broker.cli``: the ``thingctl`` command."""

from thingctl_broker.cli import main

main()
