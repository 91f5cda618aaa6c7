"""Voice Live: a dialogue service that speaks a dialect of OpenAI's Realtime protocol."""
