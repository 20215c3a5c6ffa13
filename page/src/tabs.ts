// Texts to copy, one of them shown: tabs by ARIA's pattern (arrow keys, Home, End).

import { element } from "./dom";

export interface Tab {
  name: string;
  /** Where the text goes, in a word or two; may be empty. */
  place: string;
  text: string;
}

export class Tabs {
  private readonly list = element("div", "tabs");
  private readonly place = element("span", "place");
  private readonly copy = element("button", "quiet copy", "Copy");
  private readonly text = element("pre", "code");
  private tabs: Tab[] = [];
  private selected = 0;

  constructor(
    parent: HTMLElement,
    private readonly label: string,
  ) {
    this.list.setAttribute("role", "tablist");
    this.list.setAttribute("aria-label", label);
    this.text.setAttribute("role", "tabpanel");
    this.text.id = `${parent.id}-panel`;
    this.text.tabIndex = 0;
    this.copy.type = "button";
    this.copy.addEventListener("click", () => void this.copyText());
    this.list.addEventListener("keydown", (event) => this.move(event));
    parent.append(element("div", "tab-bar", this.list, this.place, this.copy), this.text);
  }

  show(tabs: Tab[]): void {
    if (tabs.length !== this.tabs.length) this.list.replaceChildren(...tabs.map((tab, index) => this.tab(tab, index)));
    this.tabs = tabs;
    this.select(Math.min(this.selected, tabs.length - 1), false);
  }

  private tab(tab: Tab, index: number): HTMLButtonElement {
    const button = element("button", "tab", tab.name);
    button.type = "button";
    button.id = `${this.text.id}-${index}`;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", this.text.id);
    button.addEventListener("click", () => this.select(index, false));
    return button;
  }

  private select(index: number, focus: boolean): void {
    this.selected = index;
    const tab = this.tabs[index]!;
    Array.from(this.list.children).forEach((child, place) => {
      const button = child as HTMLButtonElement;
      button.setAttribute("aria-selected", String(place === index));
      button.tabIndex = place === index ? 0 : -1;
      if (focus && place === index) button.focus();
    });
    this.text.setAttribute("aria-labelledby", `${this.text.id}-${index}`);
    if (this.text.textContent !== tab.text) this.text.textContent = tab.text;
    this.place.textContent = tab.place;
    this.copy.setAttribute("aria-label", `Copy: ${this.label}, ${tab.name}`);
  }

  private move(event: KeyboardEvent): void {
    const last = this.tabs.length - 1;
    const { selected } = this;
    const next = {
      ArrowRight: selected === last ? 0 : selected + 1,
      ArrowLeft: selected === 0 ? last : selected - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.select(next, true);
  }

  private async copyText(): Promise<void> {
    const copied = await copy(this.tabs[this.selected]!.text, this.text);
    this.copy.textContent = copied ? "Copied" : "Press Ctrl+C";
    window.setTimeout(() => (this.copy.textContent = "Copy"), 1500);
  }
}

/** To the clipboard. Browsers give it to https and loopback only; elsewhere the text is selected instead. */
async function copy(text: string, shown: HTMLElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection()?.selectAllChildren(shown);
    return false;
  }
}
