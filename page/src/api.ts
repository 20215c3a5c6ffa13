// The server: its address, the key, requests and their streams. Addresses are relative, so a proxy's path may precede.

import { kept } from "./kept";

/** Where this page came from, without a slash at the end. */
export const ADDRESS = new URL(".", location.href).href.replace(/\/$/, "");

export interface State {
  model: "loading" | "ready" | "ending";
  key: "none" | "missing" | "wrong" | "right";
}

/** An answer with an error status, in the server's own words. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string | null = null,
  ) {
    super(message);
  }
}

/** Of this tab, until it is closed. */
export const key = kept(() => sessionStorage, "replit-key");

/** The key as UTF-8, as other programs send it; a browser takes each character of a header for a byte. */
function headers(): Record<string, string> {
  const bytes = String.fromCharCode(...new TextEncoder().encode(key.value));
  return bytes ? { Authorization: `Bearer ${bytes}` } : {};
}

async function checked(response: Response): Promise<Response> {
  if (response.ok) return response;
  const body = (await response.json().catch(() => null)) as { error?: { message?: string; code?: string } } | null;
  const { message, code } = body?.error ?? {};
  throw new ApiError(response.status, message ?? `the server answered ${response.status}`, code);
}

export async function get(path: string): Promise<Response> {
  return checked(await fetch(path, { headers: headers(), cache: "no-store" }));
}

export async function post(path: string, body: object, signal?: AbortSignal): Promise<Response> {
  return checked(
    await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers() },
      body: JSON.stringify(body),
      ...(signal ? { signal } : {}),
    }),
  );
}

/** Whether the model is there and the key right. Needs no key and is never an error status. */
export async function state(): Promise<State> {
  return (await (await get("page/state")).json()) as State;
}

/** The JSON events of a stream, without the closing [DONE]. */
export async function* events(response: Response): AsyncGenerator<unknown, void, void> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop()!;
      for (const part of parts) {
        const data = part.replace(/^data: ?/, "");
        if (data !== "[DONE]") yield JSON.parse(data);
      }
    }
  } finally {
    // Leaving early hangs up, which ends the sequence in the server.
    await reader.cancel().catch(() => undefined);
  }
}
