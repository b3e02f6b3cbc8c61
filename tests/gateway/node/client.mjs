// What the official Node client makes of a gateway: one JSON document of what it was told, for the test to judge.
// usage: node client.mjs http://HOST:PORT/v1 http://HOST:PORT/v1 (of one whose model calls a tool)
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-caller", maxRetries: 0 });
const messages = [{ role: "user", content: "Hi" }];
const metadata = { customer: "Ann" };
const said = {};

const answer = await client.chat.completions.create({ model: "any", messages, metadata });
said.chat = { text: answer.choices[0].message.content, model: answer.model };

const chunks = [];
const stream = await client.chat.completions.create({ model: "any", messages, metadata, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) chunks.push(chunk);
said.stream = { text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), tokens: chunks.at(-1).usage.total_tokens };

const response = await client.responses.create({ model: "any", input: "Hi", metadata });
said.response = { text: response.output_text, status: response.status };

const types = [];
let streamed = "";
for await (const event of await client.responses.create({ model: "any", input: "Hi", metadata, stream: true })) {
  types.push(event.type);
  if (event.type === "response.output_text.delta") streamed += event.delta;
}
said.responseStream = { text: streamed, first: types[0], last: types.at(-1) };

const vectors = await client.embeddings.create({ model: "any", input: ["one", "two"] });
said.embeddings = vectors.data.map((vector) => vector.embedding);

const completion = await client.completions.create({ model: "any", prompt: "Hi", metadata });
said.completion = completion.choices[0].text;

said.models = [];
for await (const model of client.models.list()) said.models.push((await client.models.retrieve(model.id)).id);

const calling = new OpenAI({ baseURL: process.argv[3], apiKey: "sk-caller", maxRetries: 0 });
const tools = [{ type: "function", function: { name: "find", parameters: { type: "object" } } }];
said.tools = (await calling.chat.completions.create({ model: "any", messages, tools })).choices[0].message.tool_calls;
said.toolStream = "";
for await (const chunk of await calling.chat.completions.create({ model: "any", messages, tools, stream: true })) {
  for (const call of chunk.choices[0].delta.tool_calls ?? []) said.toolStream += call.function.arguments;
}

try {
  await client.chat.completions.create({ model: "any", messages });
} catch (error) {
  said.error = { name: error.constructor.name, status: error.status, param: error.param };
}
console.log(JSON.stringify(said));
