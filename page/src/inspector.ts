// "Look inside": the suggestion's tokens tinted by probability, and the candidates for the place of one of them.

import type { Candidate, Token } from "./completion";
import { byId, element } from "./dom";
import { level, percent, spoken, visible } from "./probability";

const SHOWN = 120; // tokens; what is longer is cut, with a sign of it
const DOUBTFUL = 0.75; // a probability under which the other candidates are worth a look

export class Inspector {
  private readonly tokens = byId("tokens");
  private readonly candidates = byId("candidates");
  private readonly popover = byId("popover");
  private chosen: Token | null = null;

  constructor() {
    this.show([]);
  }

  /** The tokens of a suggestion, the first doubtful one opened. */
  show(tokens: Token[]): void {
    const shown = tokens.slice(0, SHOWN);
    const buttons = shown.map((token) => this.button(token));
    this.tokens.replaceChildren(...buttons, ...(tokens.length > SHOWN ? [element("span", "", "…")] : []));
    if (!shown.length) {
      this.tokens.replaceChildren(element("p", "empty", "Nothing is suggested here yet."));
      this.candidates.replaceChildren();
      return;
    }
    const doubtful = Math.max(shown.findIndex((token) => token.probability < DOUBTFUL), 0);
    this.open(shown[doubtful]!, buttons[doubtful]!);
  }

  /** Whether tokens are still to come, which assistive software may wait for. */
  busy(busy: boolean): void {
    this.tokens.setAttribute("aria-busy", String(busy));
  }

  /** Candidates beside the pointer, for a token of the ghost text; null hides them. */
  point(token: Token | null, place: DOMRect | null): void {
    this.popover.hidden = token === null;
    if (!token || !place) return;
    this.popover.replaceChildren(...rows(token));
    const width = this.popover.offsetWidth;
    this.popover.style.left = `${Math.max(8, Math.min(place.left, innerWidth - width - 8)) + scrollX}px`;
    this.popover.style.top = `${place.bottom + 6 + scrollY}px`;
  }

  private button(token: Token): HTMLButtonElement {
    const button = element("button", `token ${level(token.probability)}`, visible(token.text));
    button.type = "button";
    button.setAttribute("aria-label", `${spoken(token.text)}, ${percent(token.probability)}`);
    button.title = percent(token.probability);
    for (const kind of ["mouseenter", "focus", "click"]) button.addEventListener(kind, () => this.open(token, button));
    return button;
  }

  private open(token: Token, button: HTMLButtonElement): void {
    if (this.chosen === token && button.getAttribute("aria-pressed") === "true") return;
    this.chosen = token;
    for (const other of this.tokens.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    this.candidates.replaceChildren(...rows(token));
  }
}

/** A bar for each candidate, the one that was taken marked. */
function rows(token: Token): HTMLElement[] {
  const listed = token.top.length ? token.top : [{ text: token.text, probability: token.probability }];
  const taken = listed.findIndex((candidate) => Math.abs(candidate.probability - token.probability) < 1e-9);
  return listed.map((candidate, index) => row(candidate, index === taken));
}

function row(candidate: Candidate, taken: boolean): HTMLElement {
  const bar = element("span", `fill ${level(candidate.probability)}`);
  bar.style.width = `${Math.max(candidate.probability * 100, 0.5)}%`;
  return element(
    "div",
    taken ? "candidate taken" : "candidate",
    element("code", "", visible(candidate.text)),
    element("span", "track", bar),
    element("span", "percent", percent(candidate.probability)),
  );
}
