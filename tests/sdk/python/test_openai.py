"""The official OpenAI SDK for Python through the gateway, against our mock and against aimock.

Run by `./test`; alone: `python tests/sdk/python/test_openai.py` with the variables of `processes.py`.
"""

import asyncio
import json
import unittest

import openai
from openai import AsyncOpenAI, OpenAI

import processes

HELLO = [{"role": "user", "content": "Say hello"}]
WEATHER = [{"role": "user", "content": "Weather in two cities"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CITIES = [{"city": "Paris"}, {"city": "Lisbon"}]


def script(**fields):
    """A header that tells our mock how to answer; aimock ignores it."""
    return {"x-mock": json.dumps(fields)}


class AnyUpstream:
    """What holds for every upstream that speaks OpenAI's dialect."""

    model = "gpt-4o"
    listed_model = "gpt-4o"
    tool_script = {}

    @classmethod
    def setUpClass(cls):
        cls.base = processes.start_gateway(cls.start_upstream())
        cls.client = OpenAI(base_url=cls.base, api_key="sk-caller", max_retries=0)

    def chat(self, **arguments):
        return self.client.chat.completions.create(model=self.model, **{"messages": HELLO, **arguments})

    def test_chat(self):
        answer = self.chat()
        self.assertIn("hello", answer.choices[0].message.content.lower())
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage.total_tokens)

    def test_provider_prefix_is_cut(self):
        answer = self.client.chat.completions.create(model=f"openai/{self.model}", messages=HELLO)
        self.assertEqual(answer.model, self.model)

    def test_stream_without_usage(self):
        chunks = list(self.chat(stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        self.assertEqual(text, self.chat().choices[0].message.content)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")
        # The gateway asks the provider for usage; a caller who did not must see none.
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_stream_with_usage(self):
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[-1].choices, [])
        self.assertGreater(chunks[-1].usage.total_tokens, 0)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_parallel_tools(self):
        answer = self.chat(messages=WEATHER, tools=TOOLS, extra_headers=self.tool_script)
        calls = answer.choices[0].message.tool_calls
        self.assertEqual([json.loads(call.function.arguments) for call in calls], CITIES)
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")

    def test_parallel_tools_streamed(self):
        with self.client.chat.completions.stream(
            model=self.model, messages=WEATHER, tools=TOOLS, extra_headers=self.tool_script
        ) as stream:
            stream.until_done()
            calls = stream.get_final_completion().choices[0].message.tool_calls
        self.assertEqual([json.loads(call.function.arguments) for call in calls], CITIES)
        self.assertEqual(len({call.id for call in calls}), 2)

    def test_embeddings(self):
        vector = self.client.embeddings.create(model="text-embedding-3-small", input="embed this").data[0].embedding
        self.assertGreater(len(vector), 0)
        self.assertTrue(all(isinstance(number, float) for number in vector))

    def test_rate_limit(self):
        with self.assertRaises(openai.RateLimitError) as caught:
            self.chat(
                messages=[{"role": "user", "content": "Too fast"}],
                extra_headers=script(status=429, headers={"retry-after": "1"}),
            )
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")
        self.assertEqual(caught.exception.response.headers["x-gateway-error-origin"], "provider")

    def test_unknown_provider(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(extra_headers={"x-provider": "opnai"})
        self.assertEqual(caught.exception.code, "unknown_provider")
        self.assertIn("openai", caught.exception.message)

    def test_bad_json(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.post(
                "/chat/completions",
                cast_to=object,
                content=b'{"model": "gpt-4o", "messages"',
                options={"headers": {"content-type": "application/json"}},
            )
        self.assertEqual(caught.exception.type, "invalid_request_error")
        self.assertEqual(caught.exception.response.headers["x-gateway-error-origin"], "client")

    def test_headers(self):
        raw = self.client.chat.completions.with_raw_response.create(
            model=self.model, messages=HELLO, extra_headers={"x-request-id": "mine-1"}
        )
        self.assertEqual(raw.headers["x-request-id"], "mine-1")
        self.assertEqual(raw.headers["x-gateway-provider"], "openai")
        self.assertEqual(raw.headers["x-gateway-model"], self.model)
        self.assertTrue(raw.parse().choices)
        minted = self.client.chat.completions.with_raw_response.create(model=self.model, messages=HELLO)
        self.assertTrue(minted.headers["x-request-id"].startswith("msg_"))

    def test_async(self):
        async def run():
            async with AsyncOpenAI(base_url=self.base, api_key="sk-caller", max_retries=0) as client:
                calls = [client.chat.completions.create(model=self.model, messages=HELLO) for _ in range(8)]
                answers = await asyncio.gather(*calls)
                stream = await client.chat.completions.create(model=self.model, messages=HELLO, stream=True)
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                return [answer.choices[0].message.content for answer in answers], text

        answers, streamed = asyncio.run(run())
        self.assertEqual(set(answers), {streamed})

    def test_leaving_a_stream(self):
        stream = self.chat(stream=True)
        next(iter(stream))
        stream.close()
        self.assertTrue(self.chat().choices)

    def test_models(self):
        self.assertIn(self.listed_model, [model.id for model in self.client.models.list()])


class AgainstMock(AnyUpstream, unittest.TestCase):
    start_upstream = staticmethod(processes.start_mock)
    listed_model = "mock-model"
    tool_script = script(
        tool_calls=[{"id": f"call_{n}", "name": "get_weather", "arguments": city} for n, city in enumerate(CITIES)]
    )

    def test_wrong_key(self):
        with self.assertRaises(openai.AuthenticationError):
            self.chat(extra_headers=script(status=401))

    def test_retry_after_a_rate_limit(self):
        upstream = self.client.with_options(max_retries=1)
        with self.assertRaises(openai.RateLimitError):
            upstream.chat.completions.create(
                model=self.model,
                messages=HELLO,
                extra_headers=script(status=429, headers={"retry-after-ms": "5"}),
            )

    def test_error_inside_a_stream(self):
        with self.assertRaises(openai.APIError):
            list(self.chat(stream=True, extra_headers=script(chunks=9, error_after=3)))

    def test_cut_stream(self):
        with self.assertRaises(openai.APIError):
            list(self.chat(stream=True, extra_headers=script(chunks=9, cut_after=3)))

    def test_embeddings_as_numbers(self):
        answer = self.client.embeddings.create(
            model="text-embedding-3-small", input=["a", "b"], encoding_format="float"
        )
        self.assertEqual([item.index for item in answer.data], [0, 1])

    def test_moderations(self):
        self.assertTrue(self.client.moderations.create(input="please flagme").results[0].flagged)

    def test_responses(self):
        self.assertTrue(self.client.responses.create(model=self.model, input="Say hello").output_text)
        events = list(self.client.responses.create(model=self.model, input="Say hello", stream=True))
        self.assertEqual(events[-1].type, "response.completed")

    def test_completions(self):
        answer = self.client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Say hello")
        self.assertTrue(answer.choices[0].text)

    def test_images(self):
        self.assertTrue(self.client.images.generate(model="gpt-image-1", prompt="a boat").data)

    def test_speech_is_bytes(self):
        answer = self.client.audio.speech.create(
            model="gpt-4o-mini-tts", voice="alloy", input="hello", extra_headers=script(bytes=100_000)
        )
        self.assertEqual(len(answer.read()), 100_000)

    def test_transcription(self):
        sound = ("sound.wav", b"RIFF" + bytes(70_000), "audio/wav")
        self.assertTrue(self.client.audio.transcriptions.create(model="whisper-1", file=sound).text)


class AgainstAimock(AnyUpstream, unittest.TestCase):
    start_upstream = staticmethod(processes.start_aimock)

    def test_text_comes_whole(self):
        self.assertEqual(
            self.chat().choices[0].message.content, "Hello from an upstream that we did not write: ✓ 你好"
        )

    def test_numbers_of_an_embedding_come_exactly(self):
        answer = self.client.embeddings.create(model="text-embedding-3-small", input="embed this")
        self.assertEqual(answer.data[0].embedding, [0.25, -0.5, 1.0])


class OwnKeys(unittest.TestCase):
    """A gateway that demands keys of its own."""

    @classmethod
    def setUpClass(cls):
        cls.base = processes.start_gateway(
            processes.start_mock(), GATEWAY_API_KEYS="app:right-key-of-the-app", OPENAI_API_KEY="sk-gateway"
        )

    def test_right_key(self):
        client = OpenAI(base_url=self.base, api_key="right-key-of-the-app", max_retries=0)
        self.assertTrue(client.chat.completions.create(model="gpt-4o", messages=HELLO).choices)

    def test_wrong_key(self):
        client = OpenAI(base_url=self.base, api_key="wrong", max_retries=0)
        with self.assertRaises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        self.assertEqual(caught.exception.response.headers["x-gateway-error-origin"], "client")


if __name__ == "__main__":
    unittest.main(verbosity=2)
