// Drives a service with Azure's own Speech SDK for JavaScript and prints what it reports, as one line of JSON.
// node speech_sdk_scenarios.cjs URL KEY SCENARIO; NODE_PATH names the folder that holds the package.
"use strict";

const sdk = require("microsoft-cognitiveservices-speech-sdk");

const RATE = 16000;

function sound(ms) {
  const n = Math.floor((ms * RATE) / 1000);
  const samples = new Int16Array(n);
  for (let i = 0; i < n; i++) {
    const syllable = 0.4 + 0.6 * Math.abs(Math.sin((i / RATE) * 12));
    samples[i] = Math.trunc(9000 * Math.sin((2 * Math.PI * 180 * i) / RATE) * syllable);
  }
  return samples.buffer;
}

const silence = (ms) => new Int16Array(Math.floor((ms * RATE) / 1000)).buffer;

function stream(...parts) {
  const source = sdk.AudioInputStream.createPushStream();
  parts.forEach((part) => source.write(part));
  source.close();
  return sdk.AudioConfig.fromStreamInput(source);
}

function config(url, key) {
  const found = sdk.SpeechConfig.fromHost(new URL(url), key);
  found.speechRecognitionLanguage = "en-US";
  return found;
}

const phrase = (result) => ({
  reason: sdk.ResultReason[result.reason],
  text: result.text ?? "",
  offset_ms: Math.floor(result.offset / 10000),
  duration_ms: Math.floor(result.duration / 10000),
});

function once(url, key, prepare, ...parts) {
  const recognizer = new sdk.SpeechRecognizer(config(url, key), stream(...parts));
  prepare(recognizer);
  return new Promise((resolve, reject) => recognizer.recognizeOnceAsync((result) => {
    const shown = phrase(result);
    if (result.reason === sdk.ResultReason.NoMatch) {
      shown.detail = sdk.NoMatchReason[sdk.NoMatchDetails.fromResult(result).reason];
    }
    if (result.reason === sdk.ResultReason.Canceled) {
      shown.detail = sdk.CancellationErrorCode[sdk.CancellationDetails.fromResult(result).ErrorCode];
    }
    resolve(shown);
  }, reject));
}

function speaking(url, key) {
  const synthesizer = new sdk.SpeechSynthesizer(config(url, key), null);
  const seen = { words: [], bookmarks: [], n_visemes: 0 };
  synthesizer.wordBoundary = (_, event) =>
    seen.words.push([event.text, event.boundaryType, Math.floor(event.audioOffset / 10000)]);
  synthesizer.bookmarkReached = (_, event) => seen.bookmarks.push(event.text);
  synthesizer.visemeReceived = () => { seen.n_visemes += 1; };
  return [synthesizer, seen];
}

const spoken = (result) => ({
  reason: sdk.ResultReason[result.reason],
  n_bytes: result.audioData ? result.audioData.byteLength : 0,
  duration_ms: Math.round(result.audioDuration / 10000),
  message: result.errorDetails ?? "",
});

const said = (synthesizer, how, text) =>
  new Promise((resolve, reject) => synthesizer[how](text, (result) => resolve(spoken(result)), reject));

const SCENARIOS = {
  single: (url, key) => once(url, key, () => {}, sound(1200), silence(1500)),
  quiet: (url, key) => once(url, key, () => {}, silence(6000)),
  wrong_key: (url, key) => once(url, `not-${key}`, () => {}, sound(1200), silence(1500)),
  phrase_list: (url, key) => once(url, key, (recognizer) =>
    sdk.PhraseListGrammar.fromRecognizer(recognizer).addPhrase("VoxEngine"), sound(1200), silence(1500)),
  continuous: (url, key) => new Promise((resolve, reject) => {
    const settings = config(url, key);
    settings.outputFormat = sdk.OutputFormat.Detailed;
    settings.requestWordLevelTimestamps();
    const recognizer = new sdk.SpeechRecognizer(
      settings, stream(sound(1200), silence(1500), sound(900), silence(1500)));
    const seen = { partial: [], final: [], canceled: [] };
    recognizer.recognizing = (_, event) => seen.partial.push(event.result.text);
    recognizer.recognized = (_, event) =>
      seen.final.push({ ...phrase(event.result), json: JSON.parse(event.result.json || "{}") });
    recognizer.canceled = (_, event) => seen.canceled.push(sdk.CancellationReason[event.reason]);
    recognizer.sessionStopped = () =>
      recognizer.stopContinuousRecognitionAsync(() => resolve(seen), reject);
    recognizer.startContinuousRecognitionAsync(() => {}, reject);
  }),
  text: async (url, key) => {
    const [synthesizer, seen] = speaking(url, key);
    return { ...(await said(synthesizer, "speakTextAsync", "Hello to all of you, my friends.")), ...seen };
  },
  ssml: async (url, key) => {
    const [synthesizer, seen] = speaking(url, key);
    const document = "<speak version='1.0' xmlns='http://www.w3.org/2001/10/synthesis' xml:lang='en-US'>" +
      "<voice name='en-US-JennyNeural'>Hello <bookmark mark='b1'/>world.</voice></speak>";
    return { ...(await said(synthesizer, "speakSsmlAsync", document)), ...seen };
  },
  two_texts: async (url, key) => {
    const [synthesizer] = speaking(url, key);
    return [await said(synthesizer, "speakTextAsync", "First."),
      await said(synthesizer, "speakTextAsync", "And second.")];
  },
  bad_voice: async (url, key) => {
    const settings = config(url, key);
    settings.speechSynthesisVoiceName = "nobody";
    return said(new sdk.SpeechSynthesizer(settings, null), "speakTextAsync", "Hello.");
  },
};

SCENARIOS[process.argv[4]](process.argv[2], process.argv[3]).then(
  (answer) => { console.log(JSON.stringify(answer)); process.exit(0); },
  (error) => { console.error(String(error)); process.exit(1); },
);
