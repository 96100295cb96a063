"""Everything between the outbox and a broker: the sink and its connections, commands, secrets, discovery."""
