// The request as a curl line and as Python, and the lines that an editor's configuration takes.

import { ADDRESS, key } from "./api";
import editors from "./editors.json";
import type { Tab } from "./tabs";

const VARIABLE = "REPLIT_API_KEY"; // a key is secret: what is copied names the variable that holds it

/** A request to /v1/completions, to run elsewhere. */
export function requestTabs(request: Record<string, unknown>): Tab[] {
  return [
    { name: "curl", place: "in a shell", text: curl(request) },
    { name: "Python", place: "pip install openai", text: python(request) },
  ];
}

function curl(request: Record<string, unknown>): string {
  const quoted = `'${JSON.stringify(request, null, 1).replace(/'/g, `'\\''`)}'`;
  const authorization = key.value ? ` \\\n  -H "Authorization: Bearer $${VARIABLE}"` : "";
  return `curl ${ADDRESS}/v1/completions -H "Content-Type: application/json"${authorization} \\\n  -d ${quoted}\n`;
}

/** Fields of the SDK's own signature; others go into extra_body. */
const OPENAI = ["model", "prompt", "suffix", "max_tokens", "temperature"];

/** A value as Python writes it. */
function literal(value: unknown): string {
  return value === true ? "True" : JSON.stringify(value);
}

function python(request: Record<string, unknown>): string {
  const entries = Object.entries(request);
  const line = (separator: string) => ([name, value]: [string, unknown]): string =>
    separator === "=" ? `    ${name}=${literal(value)},` : `"${name}": ${literal(value)}`;
  const more = entries.filter(([name]) => !OPENAI.includes(name)).map(line(":"));
  return [
    ...(key.value ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${ADDRESS}/v1", api_key=${key.value ? `os.environ["${VARIABLE}"]` : '"none"'})`,
    "answer = client.completions.create(",
    ...entries.filter(([name]) => OPENAI.includes(name)).map(line("=")),
    `    extra_body={${more.join(", ")}},`,
    ")",
    "print(answer.choices[0].text)",
    "",
  ].join("\n");
}

/** Configuration lines of docs/editors.md with this server's address and model. */
export function editorTabs(model: string): Tab[] {
  const name = JSON.stringify(model).slice(1, -1); // as YAML, TOML and Lua spell it between double quotes
  const values: Record<string, string> = { url: ADDRESS, model: name, key: key.value ? "YOUR_KEY" : "" };
  return editors.map(({ name, file, lines }) => ({
    name,
    place: file,
    text: lines.join("\n").replace(/\{\{(\w+)\}\}/g, (_, word: string) => values[word] ?? "") + "\n",
  }));
}
