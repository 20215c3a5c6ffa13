// The editor: CodeMirror with line numbers, history, a language, colours from page.css, and ghost text.

import { defaultKeymap, history, historyKeymap, indentLess, indentMore } from "@codemirror/commands";
import {
  bracketMatching,
  HighlightStyle,
  indentOnInput,
  indentUnit,
  LanguageSupport,
  syntaxHighlighting,
} from "@codemirror/language";
import { Compartment, EditorState, Prec } from "@codemirror/state";
import { drawSelection, EditorView, keymap, lineNumbers, type ViewUpdate } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import type { Token } from "./completion";
import { dismiss, ghost, onToken, takeAll, takeLine, takeWord } from "./ghost";
import type { Example } from "./examples";

const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.modifier, tags.operatorKeyword], class: "c-keyword" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp, tags.character], class: "c-string" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom, tags.self], class: "c-constant" },
  { tag: tags.comment, class: "c-comment" },
  { tag: [tags.function(tags.variableName), tags.function(tags.propertyName)], class: "c-function" },
  { tag: [tags.className, tags.typeName, tags.namespace], class: "c-type" },
  { tag: [tags.definition(tags.variableName), tags.propertyName], class: "c-name" },
  { tag: [tags.meta, tags.annotation, tags.processingInstruction], class: "c-meta" },
]);

export interface Hooks {
  nonce: string;
  update(update: ViewUpdate): void;
  ask(view: EditorView): void;
  token(token: Token | null, place: DOMRect | null): void;
}

const language = new Compartment();

function languageOf(example: Example): (LanguageSupport | ReturnType<typeof indentUnit.of>)[] {
  return [example.support(), indentUnit.of(example.indent)];
}

/** An editor that shows an example, the cursor where its code is to go on. */
export function createEditor(parent: HTMLElement, example: Example, hooks: Hooks): EditorView {
  const keys = keymap.of([
    // Tab takes the suggestion and otherwise indents; Escape and then Tab leaves the editor (CodeMirror's own rule).
    { key: "Tab", run: (view) => takeAll(view) || indentMore(view), shift: indentLess },
    { key: "Ctrl-ArrowRight", mac: "Cmd-ArrowRight", run: takeWord },
    { key: "Ctrl-Enter", mac: "Cmd-Enter", run: takeLine },
    { key: "Alt-ArrowDown", run: takeLine },
    { key: "Escape", run: dismiss },
    { key: "Ctrl-Space", run: (view) => (hooks.ask(view), true) },
  ]);
  const state = EditorState.create({
    doc: example.before + example.after,
    selection: { anchor: example.before.length },
    extensions: [
      lineNumbers(),
      history(),
      drawSelection(),
      indentOnInput(),
      bracketMatching(),
      syntaxHighlighting(COLOURS),
      language.of(languageOf(example)),
      ghost(),
      onToken.of(hooks.token),
      Prec.highest(keys),
      keymap.of([...defaultKeymap, ...historyKeymap]),
      EditorView.cspNonce.of(hooks.nonce),
      EditorView.lineWrapping,
      EditorView.contentAttributes.of({
        "aria-label": "Code",
        "aria-describedby": "keys",
        autocapitalize: "off",
        spellcheck: "false",
      }),
      EditorView.updateListener.of(hooks.update),
    ],
  });
  return new EditorView({ parent, state });
}

/** Replaces the whole text by another example in its language. */
export function showExample(view: EditorView, example: Example): void {
  view.dispatch({
    changes: { from: 0, to: view.state.doc.length, insert: example.before + example.after },
    selection: { anchor: example.before.length },
    effects: language.reconfigure(languageOf(example)),
  });
}
