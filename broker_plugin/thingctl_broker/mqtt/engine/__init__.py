"""Ordinary MQTT without a socket: subscriptions, sessions, retained messages, the broker's figures. Pure."""
