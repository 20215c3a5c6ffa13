// One completion at the cursor: the request, what comes back, and how the page tells one from the other.

import type { Text } from "@codemirror/state";
import { ApiError, events, post } from "./api";

/** What the sliders say. */
export interface Settings {
  temperature: number;
  top_k: number;
  max_tokens: number;
  completion: "line" | "block" | "full";
}

/** What is served. */
export interface Model {
  name: string;
  fillsIn: boolean;
  /** Tokens of a sequence, prompt and completion together. */
  length: number;
}

/** Code before and after the cursor; `cut` where the text had more of it. */
export interface Code {
  before: string;
  after: string;
  cut: boolean;
}

/** A candidate for a token's place, by its spelling. */
export interface Candidate {
  text: string;
  probability: number;
}

/** A token of the completion: the characters that it brings, and how probable it was. */
export interface Token {
  text: string;
  probability: number;
  /** The most probable candidates, best first. */
  top: Candidate[];
}

/** What is known of a completion so far. */
export interface Completion {
  text: string;
  tokens: Token[];
  finish: string | null;
  /** Milliseconds from the request to the first text, and to the newest. */
  first: number;
  last: number;
  usage: Usage | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
  /** Guesses that were checked, where there were any: OpenAI's names for them. */
  completion_tokens_details?: { accepted_prediction_tokens?: number; rejected_prediction_tokens?: number } | null;
}

interface Logprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  text_offset: number[];
}

interface Chunk {
  error?: { message: string };
  choices?: { text: string; logprobs: Logprobs | null; finish_reason: string | null }[];
  usage?: Usage | null;
}

const CANDIDATES = 6; // the token itself, where it is the most probable one, and five others

/** More characters a token than code has: the server cuts what is left to the token, as it does for every editor. */
const MOST_CHARACTERS = 16;

/**
 * What the model is to see of a text. A continuation must fit, since the server refuses a longer one: its length is
 * reckoned by `characters` a token. Nobody waits for the ends of a long file that the model could not read anyway.
 */
export function around(text: Text, at: number, model: Model, newTokens: number, characters: number): Code {
  const room = model.fillsIn ? model.length * MOST_CHARACTERS : Math.max((model.length - newTokens) * characters, 1);
  let from = whole(text, Math.max(at - Math.floor(room), 0));
  const line = text.lineAt(from);
  if (from > line.from && line.to < at) from = line.to + 1;
  const to = model.fillsIn ? whole(text, Math.min(at + room, text.length)) : at;
  return { before: text.sliceString(from, at), after: text.sliceString(at, to), cut: from > 0 || (model.fillsIn && to < text.length) };
}

/** A place, or the one before it where it would part the two halves of a character. */
function whole(text: Text, at: number): number {
  return /^[\udc00-\udfff]/.test(text.sliceString(at, at + 1)) ? at - 1 : at;
}

/**
 * The request's body: fill-in-the-middle where the model can, with nothing after the cursor too. Code often ends inside
 * a token, which the server takes back and completes: by itself in a gap, and where it is asked to in a continuation.
 */
export function body(model: Model, code: Code, settings: Settings): Record<string, unknown> {
  const rest = model.fillsIn ? { suffix: code.after } : { token_healing: true };
  return { model: model.name, prompt: code.before, ...rest, ...settings };
}

/** Asks, and yields the same growing completion at each piece. Ends early, and in the server too, when `signal` says. */
export async function* complete(
  request: Record<string, unknown>,
  signal: AbortSignal,
): AsyncGenerator<Completion, void, void> {
  const begun = performance.now();
  const more = { stream: true, stream_options: { include_usage: true }, logprobs: CANDIDATES };
  const response = await post("v1/completions", { ...request, ...more }, signal);
  const found: Completion = { text: "", tokens: [], finish: null, first: 0, last: 0, usage: null };
  const parts: Logprobs[] = [];
  let text = "";
  for await (const event of events(response)) {
    const chunk = event as Chunk;
    if (chunk.error) throw new ApiError(200, chunk.error.message);
    found.usage = chunk.usage ?? found.usage;
    const choice = chunk.choices?.[0];
    if (choice) {
      found.last = performance.now() - begun;
      found.first ||= found.last;
      text += choice.text;
      found.text = unixLines(text);
      found.finish = choice.finish_reason ?? found.finish;
      if (choice.logprobs?.tokens.length) parts.push(choice.logprobs);
      found.tokens = tokens(text, parts);
    }
    yield found;
  }
}

/** Text as the editor has it: lines end with a line feed alone. */
function unixLines(text: string): string {
  return text.replace(/\r/g, "");
}

/** The tokens that brought `text`. What was cut off its end has no token; offsets count code points. */
function tokens(text: string, parts: Logprobs[]): Token[] {
  const points = Array.from(text);
  const offsets = parts.flatMap((part) => part.text_offset);
  const found: Token[] = [];
  let index = 0;
  for (const part of parts) {
    part.tokens.forEach((_, place) => {
      const start = index === 0 ? 0 : offsets[index]!;
      const end = offsets[++index] ?? points.length;
      const shown = unixLines(points.slice(start, Math.max(end, start)).join(""));
      if (shown) {
        const top = Object.entries(part.top_logprobs[place] ?? {}).map(candidate);
        found.push({ text: shown, probability: Math.exp(part.token_logprobs[place] ?? 0), top: top.sort(better) });
      }
    });
  }
  return found;
}

function candidate([text, logprob]: [string, number]): Candidate {
  return { text, probability: Math.exp(logprob) };
}

function better(one: Candidate, other: Candidate): number {
  return other.probability - one.probability;
}
