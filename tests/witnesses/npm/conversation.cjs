// OpenAI's own client for Node holds a conversation: speech, a tool, a cancelled response. One JSON line at the end.
// Arguments: the address of the API, and a file with the user's speech, PCM16 at 24 kHz with a pause at its end.
"use strict";
const fs = require("node:fs");
const { OpenAI } = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");

const [baseURL, speech] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "sk-drive", baseURL });
const told = { heard: "", said: [], calls: [], n_audio: 0, statuses: [], errors: [] };
const tool = {
  type: "function",
  name: "get_weather",
  description: "Says how the weather is.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

const session = new OpenAIRealtimeWS({ model: "gpt-realtime" }, client);
const user = (text) => ({ type: "message", role: "user", content: [{ type: "input_text", text }] });
let isCancelling = false;

session.on("error", (error) => told.errors.push(error.message));
session.on("session.created", () => session.send({ type: "session.update", session: {
  type: "realtime",
  tools: [tool],
  audio: { input: { transcription: { model: "gpt-transcribe" } }, output: { voice: "cedar" } },
} }));
session.on("session.updated", () => {
  const audio = fs.readFileSync(speech);
  for (let at = 0; at < audio.length; at += 4800) {
    session.send({ type: "input_audio_buffer.append", audio: audio.subarray(at, at + 4800).toString("base64") });
  }
});
session.on("conversation.item.input_audio_transcription.completed", (event) => (told.heard = event.transcript));
session.on("response.function_call_arguments.done", (event) => {
  told.calls.push([event.name, JSON.parse(event.arguments)]);
  const output = JSON.stringify({ sky: "sunny" });
  const item = { type: "function_call_output", call_id: event.call_id, output };
  session.send({ type: "conversation.item.create", item });
});
session.on("response.output_audio.delta", (event) => {
  told.n_audio += Buffer.from(event.delta, "base64").length / 2;
  if (isCancelling) {
    session.send({ type: "response.cancel", response_id: event.response_id });
    isCancelling = false;
  }
});
session.on("response.output_audio_transcript.done", (event) => told.said.push(event.transcript));
session.on("response.done", ({ response }) => {
  told.statuses.push(response.status);
  if (response.output.some((item) => item.type === "function_call")) {
    session.send({ type: "response.create" });
  } else if (response.status === "completed") {
    isCancelling = true;
    session.send({ type: "conversation.item.create", item: user("Tell me a long story.") });
    session.send({ type: "response.create" });
  } else {
    session.close();
  }
});
session.socket.on("close", () => console.log(JSON.stringify(told)));
