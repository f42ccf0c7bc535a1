"""KAOS over live sandboxes: one implementation through POSIX `sh`, a transport per provider."""
