"""The APIs of other products, spoken word for word: Navixy, Microsoft Graph."""
