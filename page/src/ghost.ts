// Ghost text: a completion shown at the cursor that is no part of the document until it is taken.

import { isolateHistory } from "@codemirror/commands";
import { type Extension, Facet, StateEffect, StateField, Transaction } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, WidgetType } from "@codemirror/view";
import type { Token } from "./completion";
import { level } from "./probability";

/** A completion at `from`, of which the first `taken` characters are in the document already. */
export interface Ghost {
  from: number;
  taken: number;
  text: string;
  tokens: Token[];
}

/** Shows a completion, replacing what is shown; null shows none. */
export const showGhost = StateEffect.define<Ghost | null>();
/** More of the completion that is shown. */
export const extendGhost = StateEffect.define<{ text: string; tokens: Token[] }>();
/** Told when the pointer is on a token of the ghost text, and when it leaves. */
export const onToken = Facet.define<(token: Token | null, place: DOMRect | null) => void>();

function rest(ghost: Ghost): string {
  return ghost.text.slice(ghost.taken);
}

/** The ghost after a change: further on where what was typed is what it says, else none. */
function followed(ghost: Ghost, transaction: Transaction): Ghost | null {
  const cursor = ghost.from + ghost.taken;
  if (transaction.docChanged) {
    let typed = "";
    let elsewhere = false;
    transaction.changes.iterChanges((start, end, _from, _to, inserted) => {
      if (start !== cursor || end !== cursor) elsewhere = true;
      typed += inserted.toString();
    });
    if (elsewhere || !typed || !rest(ghost).startsWith(typed)) return null;
    ghost = { ...ghost, taken: ghost.taken + typed.length };
  }
  const selection = transaction.newSelection.main;
  return selection.empty && selection.head === ghost.from + ghost.taken ? ghost : null;
}

export const ghostField = StateField.define<Ghost | null>({
  create: () => null,
  update(ghost, transaction) {
    if (ghost && (transaction.docChanged || transaction.selection)) ghost = followed(ghost, transaction);
    for (const effect of transaction.effects) {
      if (effect.is(showGhost)) ghost = effect.value;
      if (effect.is(extendGhost) && ghost) ghost = { ...ghost, ...effect.value };
    }
    return ghost;
  },
  provide: (field) => EditorView.decorations.from(field, decoration),
});

function decoration(ghost: Ghost | null): DecorationSet {
  if (!ghost || !rest(ghost)) return Decoration.none;
  const widget = Decoration.widget({ widget: new GhostWidget(ghost), side: 1 });
  return Decoration.set(widget.range(ghost.from + ghost.taken));
}

class GhostWidget extends WidgetType {
  constructor(private readonly ghost: Ghost) {
    super();
  }

  override eq(other: GhostWidget): boolean {
    return rest(other.ghost) === rest(this.ghost) && other.ghost.tokens.length === this.ghost.tokens.length;
  }

  /** The rest of each token in a span of its own. A screen reader is told elsewhere. */
  override toDOM(view: EditorView): HTMLElement {
    const whole = document.createElement("span");
    whole.className = "ghost";
    whole.setAttribute("aria-hidden", "true");
    const spans = new Map<EventTarget, Token>();
    let start = 0;
    for (const token of this.ghost.tokens) {
      const end = start + token.text.length;
      if (end > this.ghost.taken) {
        const span = document.createElement("span");
        span.className = `token ${level(token.probability)}`;
        span.textContent = token.text.slice(Math.max(this.ghost.taken - start, 0));
        spans.set(span, token);
        whole.append(span);
      }
      start = end;
    }
    whole.append(this.ghost.text.slice(Math.max(start, this.ghost.taken)));
    const tell = view.state.facet(onToken);
    whole.addEventListener("mouseover", (event) => {
      const token = event.target && spans.get(event.target);
      if (token) for (const told of tell) told(token, (event.target as Element).getClientRects()[0] ?? null);
    });
    whole.addEventListener("mouseleave", () => {
      for (const told of tell) told(null, null);
    });
    return whole;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

/** The ghost text that is shown, if any. */
export function ghostText(view: EditorView): string {
  const ghost = view.state.field(ghostField);
  return ghost ? rest(ghost) : "";
}

/** Puts what `part` gives of the ghost text into the document. False where there is none. */
function take(view: EditorView, part: (text: string) => string): boolean {
  const text = part(ghostText(view));
  if (!text || view.state.readOnly) return false;
  const at = view.state.selection.main.head;
  view.dispatch({
    changes: { from: at, insert: text },
    selection: { anchor: at + text.length },
    scrollIntoView: true,
    annotations: isolateHistory.of("full"), // undone by itself
    userEvent: "input.complete",
  });
  return true;
}

export function takeAll(view: EditorView): boolean {
  return take(view, (text) => text);
}

/** A word, or a run of signs, with the space before it. */
export function takeWord(view: EditorView): boolean {
  return take(view, (text) => /^\s*(?:[\p{L}\p{M}\p{N}_]+|[^\p{L}\p{M}\p{N}_\s]+|$)/u.exec(text)?.[0] ?? "");
}

/** To the end of the line; of an empty rest of a line, the next one. */
export function takeLine(view: EditorView): boolean {
  return take(view, (text) => /^\n?[^\n]*/.exec(text)?.[0] ?? "");
}

export function dismiss(view: EditorView): boolean {
  if (!ghostText(view)) return false;
  view.dispatch({ effects: showGhost.of(null), userEvent: "ghost.dismiss" });
  return true;
}

export function ghost(): Extension {
  return ghostField;
}
