"""The link of a worker to an MQTT 5 cluster: shared subscriptions, acknowledged after commit.

``link`` is what a worker uses; ``connection`` alone speaks gmqtt, which the extra ``[cluster]`` brings.
"""
