"""`python -m shared.flower`: Flower, whose pages show workers and tasks. Behind a password, and it changes nothing.

Its other options are its own, as variables: https://flower.readthedocs.io/en/latest/config.html
"""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery

import sys

from shared.application import Application
from shared.celery_settings import publisher_settings
from shared.config import FlowerSettings
from shared.variables import SettingsError

# A container's name goes with it: after this time its worker is none that is missed.
_FORGOTTEN_SECONDS = 3600


def main() -> None:
    """Show them until told to stop. Where it cannot start it ends with 1, and the reason."""
    try:
        settings = FlowerSettings.load()
    except SettingsError as error:
        sys.exit(f"workers: flower cannot start:\n{error}")
    app = Application("flower", settings.broker_url.reveal())
    app.conf.update(publisher_settings(settings))
    app.start(
        [
            "flower",
            f"--basic_auth={settings.basic_auth.reveal()}",
            "--read_only=true",
            f"--purge_offline_workers={_FORGOTTEN_SECONDS}",
        ]
    )


if __name__ == "__main__":
    main()
