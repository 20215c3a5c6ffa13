// One completion at the cursor: the request, what comes back, and how the page tells one from the other.

import { ApiError, events, post } from "./api";

/** What the sliders say. */
export interface Settings {
  temperature: number;
  top_k: number;
  max_tokens: number;
  completion: "line" | "block" | "full";
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
  timings: Timings | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
}

/** Fields of llama.cpp's `timings`, of which a server may send some. */
export interface Timings {
  draft_n?: number;
  draft_n_accepted?: number;
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
  timings?: Timings | null;
}

const CANDIDATES = 5; // the most that /v1/completions takes

/** The request's body: fill-in-the-middle where there is text after the cursor and the model can. */
export function body(model: string, before: string, after: string, settings: Settings): Record<string, unknown> {
  return { model, prompt: before, ...(after ? { suffix: after } : {}), ...settings };
}

/** Asks, and yields the same growing completion at each piece. Ends early, and in the server too, when `signal` says. */
export async function* complete(
  request: Record<string, unknown>,
  signal: AbortSignal,
): AsyncGenerator<Completion, void, void> {
  const begun = performance.now();
  const more = { stream: true, stream_options: { include_usage: true }, logprobs: CANDIDATES };
  const response = await post("v1/completions", { ...request, ...more }, signal);
  const found: Completion = { text: "", tokens: [], finish: null, first: 0, last: 0, usage: null, timings: null };
  const parts: Logprobs[] = [];
  for await (const event of events(response)) {
    const chunk = event as Chunk;
    if (chunk.error) throw new ApiError(200, chunk.error.message);
    found.usage = chunk.usage ?? found.usage;
    found.timings = chunk.timings ?? found.timings;
    const choice = chunk.choices?.[0];
    if (choice) {
      found.last = performance.now() - begun;
      found.first ||= found.last;
      found.text += choice.text;
      found.finish = choice.finish_reason ?? found.finish;
      if (choice.logprobs?.tokens.length) parts.push(choice.logprobs);
      found.tokens = tokens(found.text, parts);
    }
    yield found;
  }
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
      const shown = points.slice(start, Math.max(end, start)).join("");
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
