"""The commands as a user starts them: `runner …` in a process, a sandbox over loopback, real queues, real downloads."""
