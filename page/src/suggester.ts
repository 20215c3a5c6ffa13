// Asks for a completion whenever the text at the cursor changes, and drops what runs at the next keystroke.

import type { EditorView, ViewUpdate } from "@codemirror/view";
import { ApiError } from "./api";
import { around, body, type Code, complete, type Completion, type Model, type Settings } from "./completion";
import { extendGhost, ghostField, showGhost } from "./ghost";

/** What the rest of the page is told. */
export interface Listener {
  /** Something will be asked as soon as no key follows. */
  awaited(): void;
  asked(request: Record<string, unknown>, code: Code): void;
  grown(completion: Completion): void;
  ended(completion: Completion): void;
  failed(error: unknown): void;
  /** Nothing is asked or shown any more. */
  dropped(): void;
}

/** Milliseconds to wait for the next keystroke: a quarter of what a first token takes, within these. */
const SHORTEST = 15;
const LONGEST = 250;

/** Of a token of code, on average; a character is at most four tokens. */
const CHARACTERS = 2.5;
const FEWEST_CHARACTERS = 0.25;

export class Suggester {
  /** The served model, once it is known and loaded; until then nothing is asked. */
  model: Model | null = null;

  private timer = 0;
  private running: AbortController | null = null;
  private firstToken = SHORTEST; // running mean, milliseconds
  private characters = CHARACTERS; // of a token, for prompts that must fit; less once one did not

  constructor(
    private readonly settings: () => Settings,
    /** Whether to ask without being asked to. */
    private readonly enabled: () => boolean,
    private readonly listener: Listener,
  ) {}

  /** To be called at each of the editor's updates. */
  update(update: ViewUpdate): void {
    const followed = update.state.field(ghostField);
    const dismissed = update.transactions.some((transaction) => transaction.isUserEvent("ghost.dismiss"));
    if (dismissed) return this.stop();
    const clicked = update.transactions.some((transaction) => transaction.isUserEvent("select.pointer"));
    if (!update.docChanged && !(update.selectionSet && !followed)) return;
    // Typed or taken as suggested: what runs is still right.
    if (followed && (this.running || followed.taken < followed.text.length)) return;
    this.stop();
    if (update.docChanged || clicked) this.soon(update.view);
  }

  /** Asks after the time in which a next keystroke may come. */
  soon(view: EditorView): void {
    this.stop();
    if (!this.enabled()) return;
    this.listener.awaited();
    const wait = Math.min(Math.max(this.firstToken / 4, SHORTEST), LONGEST);
    this.timer = window.setTimeout(() => void this.ask(view), wait);
  }

  /** Asks now for a completion at the cursor. */
  async ask(view: EditorView): Promise<void> {
    this.stop();
    const { model } = this;
    const { main } = view.state.selection;
    if (!model || !main.empty || view.composing) return;
    const settings = this.settings();
    const code = around(view.state.doc, main.head, model, settings.max_tokens, this.characters);
    if (!code.before && !code.after) return;
    const request = body(model, code, settings);
    const running = (this.running = new AbortController());
    this.listener.asked(request, code);
    try {
      await this.show(view, main.head, request, running);
    } catch (error) {
      if (running.signal.aborted) return;
      const long = error instanceof ApiError && error.code === "context_length_exceeded" && !model.fillsIn;
      if (long && this.characters > FEWEST_CHARACTERS) {
        this.characters /= 2;
        return void this.ask(view);
      }
      if (long) this.characters = CHARACTERS; // no prompt fits beside so long a suggestion; a shorter one may be asked for
      this.listener.failed(error);
    } finally {
      if (this.running === running) this.running = null;
    }
  }

  /** Drops what is waited for and what runs; the server drops it too. */
  stop(): void {
    window.clearTimeout(this.timer);
    const running = this.running;
    this.running = null;
    running?.abort();
    this.listener.dropped();
  }

  private async show(
    view: EditorView,
    from: number,
    request: Record<string, unknown>,
    running: AbortController,
  ): Promise<void> {
    let shown = false;
    let drawn = 0;
    let newest: Completion | null = null;
    const draw = (completion: Completion): void => {
      const { text, tokens } = completion;
      if (!shown) view.dispatch({ effects: showGhost.of({ from, taken: 0, text, tokens }) });
      else view.dispatch({ effects: extendGhost.of({ text, tokens }) });
      shown = true;
      drawn = performance.now();
      this.listener.grown(completion);
    };
    for await (const completion of complete(request, running.signal)) {
      if (running.signal.aborted) return;
      newest = completion;
      // The first at once; then as often as a screen shows, not as a fast model writes.
      if (completion.text && performance.now() - drawn > 30) draw(completion);
    }
    if (!newest || running.signal.aborted) return;
    this.firstToken += (newest.first - this.firstToken) / 4;
    draw(newest);
    this.running = null;
    this.listener.ended(newest);
    const ghost = view.state.field(ghostField);
    if (ghost && ghost.taken > 0 && ghost.taken === ghost.text.length) this.soon(view); // all of it was typed already
  }
}
