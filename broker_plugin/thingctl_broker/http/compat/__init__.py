"""Other systems' HTTP APIs over this broker's service, so that their clients need no change."""
