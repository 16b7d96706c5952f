"""Messages to citizens: texts, outbox, gateway, and the development inbox."""
