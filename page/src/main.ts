// The page: connects editor, suggestions, look inside, the strip, and the texts to copy.

import type { EditorView, ViewUpdate } from "@codemirror/view";
import { ApiError, get, state } from "./api";
import { around, body, type Code, type Completion } from "./completion";
import { byId, element, setText } from "./dom";
import { createEditor, showExample } from "./editor";
import { EXAMPLES } from "./examples";
import { dismiss, ghostText, takeAll, takeLine, takeWord } from "./ghost";
import { Inspector } from "./inspector";
import { askForKey } from "./key";
import { Sent } from "./sent";
import { connectSettings } from "./settings";
import { editorTabs, requestTabs } from "./snippets";
import { Status } from "./status";
import { Suggester } from "./suggester";
import { Tabs } from "./tabs";
import { connectTheme } from "./theme";

interface Props {
  model_path: string;
  fill_in_the_middle: boolean;
  default_generation_settings: { n_ctx: number };
}

const RETRY = 1000; // milliseconds, while the model loads or the server is away

connectTheme();
const inspector = new Inspector();
const sent = new Sent();
const request = new Tabs(byId("request"), "The same request");
const connect = new Tabs(byId("connect"), "In your editor");
const status = new Status(() => void start());
const settings = connectSettings(() => {
  example();
  suggester.soon(view);
});
let asked: { request: Record<string, unknown>; code: Code } | null = null;

const enabled = byId<HTMLInputElement>("enabled"); // a browser that comes back may have it as it was left
const suggester = new Suggester(settings, () => enabled.checked, {
  awaited: () => inspector.busy(true),
  asked(made, code) {
    inspector.busy(true);
    asked = { request: made, code };
    request.show(requestTabs(made));
    say("");
  },
  grown(completion) {
    inspector.show(completion.tokens);
    setText(byId("figures"), figures(completion));
  },
  ended(completion) {
    inspector.busy(false);
    setText(byId("figures"), figures(completion));
    if (asked) sent.show(asked.request, asked.code, completion);
    setText(byId("said"), completion.text.trim() ? `Suggestion: ${completion.text}` : "");
    if (!completion.text.trim()) say("The model suggests nothing here.");
  },
  failed: fail,
  dropped() {
    inspector.busy(false);
    sent.stop();
  },
});

const view: EditorView = createEditor(byId("editor"), EXAMPLES["python"]!, {
  nonce: document.querySelector<HTMLElement>("link[nonce]")?.nonce ?? "",
  update,
  ask: (view) => void suggester.ask(view),
  token: (token, place) => inspector.point(token, place),
});

function update(changed: ViewUpdate): void {
  suggester.update(changed);
  inspector.point(null, null);
  const some = ghostText(changed.view) !== "";
  for (const id of ["take-all", "take-word", "take-line", "dismiss"]) byId<HTMLButtonElement>(id).disabled = !some;
  if (!some && changed.docChanged) setText(byId("said"), "");
}

function figures(completion: Completion): string {
  const { first, last, tokens } = completion;
  const seconds = (last - first) / 1000;
  // What comes in one piece has no rate that a clock of milliseconds could tell.
  const rate = seconds > 0.02 ? `${Math.round((tokens.length - 1) / seconds)} tokens a second` : "";
  const count = `${tokens.length} tokens in ${Math.round(last)} ms`;
  return [`first token ${Math.round(first)} ms`, count, rate].filter(Boolean).join(" · ");
}

function say(text: string): void {
  setText(byId("note"), text);
}

function fail(error: unknown): void {
  inspector.busy(false);
  if (error instanceof ApiError && error.status === 401) return void start();
  say(error instanceof ApiError ? error.message : "The server does not answer.");
}

/** The request that the cursor stands for, to copy before anything was asked. */
function example(): void {
  const model = suggester.model ?? { name: "nano", fillsIn: true, length: 512 };
  const code = around(view.state.doc, view.state.selection.main.head, model, settings().max_tokens, 1);
  request.show(requestTabs(body(model, code, settings())));
}

function showState(name: string): void {
  setText(byId("state"), name);
  byId("state").dataset["state"] = name;
}

let starting = false;

/** Waits for the key and the model, then begins. Again when either is lost. */
async function start(): Promise<void> {
  if (starting) return;
  starting = true;
  status.stop();
  suggester.model = null;
  try {
    await ready();
    await begin();
  } catch {
    window.setTimeout(() => void start(), RETRY);
  } finally {
    starting = false;
  }
}

/** Returns once the key is right and the model loaded. */
async function ready(): Promise<void> {
  for (;;) {
    const found = await state().catch(() => null);
    if (found) await askForKey(found);
    if (found?.model === "ready") return;
    showState(found?.model ?? "away");
    await new Promise((later) => window.setTimeout(later, RETRY));
  }
}

async function begin(): Promise<void> {
  const props = (await (await get("props")).json()) as Props;
  const length = props.default_generation_settings.n_ctx;
  suggester.model = { name: props.model_path, fillsIn: props.fill_in_the_middle, length };
  showState("ready");
  setText(byId("model"), props.model_path);
  const what = props.model_path === "nano" ? "nano, the small model in the package," : props.model_path;
  const how = props.fill_in_the_middle ? "from what stands before and after the cursor" : "from what stands before it";
  setText(byId("lead"), `${what} writes the grey text ${how}. Tab takes it.`);
  connect.show(editorTabs(props.model_path));
  example();
  void status.poll();
  suggester.soon(view);
}

function connectControls(): void {
  const language = byId<HTMLSelectElement>("language");
  for (const [id, { name }] of Object.entries(EXAMPLES)) {
    const option = element("option", "", name);
    option.value = id;
    language.append(option);
  }
  language.addEventListener("change", () => {
    showExample(view, EXAMPLES[language.value]!);
    byId("python-only").hidden = suggester.model?.name !== "nano" || language.value === "python";
  });
  enabled.addEventListener("change", () => {
    dismiss(view);
    suggester.soon(view); // which drops what runs, and asks if it may
  });
  const actions = { "take-all": takeAll, "take-word": takeWord, "take-line": takeLine, dismiss };
  for (const [id, action] of Object.entries(actions)) {
    byId(id).addEventListener("click", () => {
      action(view);
      view.focus();
    });
  }
}

connectControls();
connect.show(editorTabs("nano"));
example();
if (matchMedia("(pointer: fine)").matches) view.focus();
void start();
