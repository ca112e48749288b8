// The official OpenAI SDK for Node through the gateway, against our mock and against aimock. Run by `./test`.
"use strict";

const assert = require("node:assert/strict");
const { after, before, describe, test } = require("node:test");

const OpenAI = require("openai");
const { toFile } = require("openai");

const { startAimock, startGateway, startMock, stopAll } = require("./processes.cjs");

const model = "gpt-4o";
const hello = [{ role: "user", content: "Say hello" }];
const weather = [{ role: "user", content: "Weather in two cities" }];
const cities = [{ city: "Paris" }, { city: "Lisbon" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];

// A header that tells our mock how to answer; aimock ignores it.
const script = (fields) => ({ headers: { "x-mock": JSON.stringify(fields) } });
const twoCalls = script({
  tool_calls: cities.map((city, n) => ({ id: `call_${n}`, name: "get_weather", arguments: city })),
});

after(stopAll);

async function gather(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

// What holds for every upstream that speaks OpenAI's dialect.
function anyUpstream(start, listedModel) {
  const context = {};
  const chat = (fields, options) =>
    context.client.chat.completions.create({ model, messages: hello, ...fields }, options);

  before(async () => {
    context.base = await startGateway(await start());
    context.client = new OpenAI({ baseURL: context.base, apiKey: "sk-caller", maxRetries: 0 });
  });

  test("chat", async () => {
    const answer = await chat();
    assert.match(answer.choices[0].message.content, /hello/i);
    assert.equal(answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage.total_tokens);
  });

  test("stream without usage", async () => {
    const chunks = await gather(await chat({ stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
    assert.equal(text, (await chat()).choices[0].message.content);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
    // The gateway asks the provider for usage; a caller who did not must see none.
    assert.ok(chunks.every((chunk) => chunk.usage == null));
  });

  test("stream with usage", async () => {
    const chunks = await gather(await chat({ stream: true, stream_options: { include_usage: true } }));
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
  });

  test("parallel tools", async () => {
    const answer = await chat({ messages: weather, tools }, twoCalls);
    const calls = answer.choices[0].message.tool_calls;
    assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments)), cities);
  });

  test("parallel tools, streamed", async () => {
    const stream = context.client.chat.completions.stream({ model, messages: weather, tools }, twoCalls);
    const calls = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
    assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments)), cities);
  });

  test("embeddings", async () => {
    const answer = await context.client.embeddings.create({ model: "text-embedding-3-small", input: "embed this" });
    assert.ok(answer.data[0].embedding.length > 0);
    assert.ok(answer.data[0].embedding.every(Number.isFinite));
  });

  test("rate limit", async () => {
    const messages = [{ role: "user", content: "Too fast" }];
    const asked = chat({ messages }, script({ status: 429, headers: { "retry-after": "1" } }));
    await assert.rejects(asked, (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.equal(error.headers.get("retry-after"), "1");
      return true;
    });
  });

  test("unknown provider", async () => {
    await assert.rejects(chat({}, { headers: { "x-provider": "opnai" } }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, "unknown_provider");
      return true;
    });
  });

  test("bad JSON", async () => {
    const headers = { "content-type": "application/json", authorization: "Bearer sk-caller" };
    const answer = await fetch(`${context.base}/chat/completions`, { method: "POST", headers, body: '{"model"' });
    assert.equal(answer.status, 400);
    assert.equal((await answer.json()).error.type, "invalid_request_error");
  });

  test("headers", async () => {
    const { response } = await chat({}, { headers: { "x-request-id": "mine-1" } }).withResponse();
    assert.equal(response.headers.get("x-request-id"), "mine-1");
    assert.equal(response.headers.get("x-gateway-provider"), "openai");
  });

  test("leaving a stream", async () => {
    const stream = await chat({ stream: true });
    for await (const _ of stream) break;
    assert.ok((await chat()).choices.length);
  });

  test("models", async () => {
    const listed = await gather(context.client.models.list());
    assert.ok(listed.some((entry) => entry.id === listedModel));
  });

  return context;
}

describe("against our mock", () => {
  const context = anyUpstream(startMock, "mock-model");
  const chat = (fields, options) =>
    context.client.chat.completions.create({ model, messages: hello, ...fields }, options);

  test("wrong key", async () => {
    await assert.rejects(chat({}, script({ status: 401 })), OpenAI.AuthenticationError);
  });

  test("error inside a stream", async () => {
    const stream = await chat({ stream: true }, script({ chunks: 9, error_after: 3 }));
    await assert.rejects(gather(stream), OpenAI.APIError);
  });

  test("cut stream", async () => {
    const stream = await chat({ stream: true }, script({ chunks: 9, cut_after: 3 }));
    await assert.rejects(gather(stream), OpenAI.APIError);
  });

  test("responses", async () => {
    const answer = await context.client.responses.create({ model, input: "Say hello" });
    assert.ok(answer.output_text);
  });

  test("moderations", async () => {
    const answer = await context.client.moderations.create({ input: "please flagme" });
    assert.equal(answer.results[0].flagged, true);
  });

  test("speech is bytes", async () => {
    const fields = { model: "gpt-4o-mini-tts", voice: "alloy", input: "hello" };
    const answer = await context.client.audio.speech.create(fields, script({ bytes: 100_000 }));
    assert.equal((await answer.arrayBuffer()).byteLength, 100_000);
  });

  test("transcription", async () => {
    const file = await toFile(Buffer.alloc(70_000), "sound.wav", { type: "audio/wav" });
    const answer = await context.client.audio.transcriptions.create({ model: "whisper-1", file });
    assert.ok(answer.text);
  });
});

describe("against aimock", () => {
  anyUpstream(startAimock, "gpt-4o");
});
