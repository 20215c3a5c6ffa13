// "What the model was sent": the prompt as the server made it from the request, marker tokens and cuts included.

import { post } from "./api";
import type { Code, Completion } from "./completion";
import { byId, element, setText } from "./dom";
import { visible } from "./probability";

/** A stretch of the prompt: a marker token, or text and the number of its tokens. */
interface Segment {
  text: string;
  tokens: number;
  marker: boolean;
}

interface Prompt {
  segments: Segment[];
  /** The end of the code, taken back so that the model may complete the token it is part of. */
  healing: string;
  tokens: number;
  truncated: boolean;
}

/** Milliseconds without a keystroke before the prompt is asked for: it is read by people. */
const QUIET = 200;

export class Sent {
  private readonly shown = byId("sent");
  private readonly figures = byId("sent-figures");
  private timer = 0;
  private running: AbortController | null = null;

  /** Shows the prompt of a request whose completion has ended. */
  show(request: Record<string, unknown>, code: Code, completion: Completion): void {
    this.stop();
    const running = (this.running = new AbortController());
    this.timer = window.setTimeout(async () => {
      try {
        const answer = await post("page/prompt", request, running.signal);
        const made = (await answer.json()) as Prompt;
        this.draw({ ...made, truncated: made.truncated || code.cut }, completion, "suffix" in request);
      } catch (error) {
        if (!running.signal.aborted) setText(this.figures, error instanceof Error ? error.message : String(error));
      }
    }, QUIET);
  }

  stop(): void {
    window.clearTimeout(this.timer);
    this.running?.abort();
    this.running = null;
  }

  private draw(prompt: Prompt, completion: Completion, fill: boolean): void {
    this.shown.replaceChildren(
      ...prompt.segments.map((segment) =>
        segment.marker ? element("span", "marker", segment.text) : element("span", "text", segment.text),
      ),
      element("span", "healing", prompt.healing),
      element("span", "caret", "▏"),
    );
    this.shown.scrollTop = this.shown.scrollHeight;
    const cached = completion.usage?.prompt_tokens_details?.cached_tokens;
    const details = completion.usage?.completion_tokens_details;
    const accepted = details?.accepted_prediction_tokens ?? 0;
    const guessed = accepted + (details?.rejected_prediction_tokens ?? 0);
    const parts = [
      fill ? "fill in the middle" : "continuation",
      `${prompt.tokens} tokens`,
      prompt.truncated ? "cut to fit" : "whole",
      prompt.healing ? `“${visible(prompt.healing)}” taken back` : "",
      cached === undefined ? "" : `${cached} from the cache`,
      guessed ? `${accepted} of ${guessed} guesses right` : "",
    ];
    setText(this.figures, parts.filter(Boolean).join(" · "));
  }
}
