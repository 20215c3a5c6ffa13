// Asks for the key of a server that wants one, until it is right. It is kept in this tab.

import { key, state, type State } from "./api";
import { byId, setText } from "./dom";

function open(found: State | null): boolean {
  return found?.key === "none" || found?.key === "right";
}

/** Returns once the key that requests carry is right, or none is needed. */
export async function askForKey(found: State): Promise<void> {
  if (open(found)) return;
  key.value = ""; // one kept from an earlier server of this address
  const dialog = byId<HTMLDialogElement>("key-dialog");
  const input = byId<HTMLInputElement>("key");
  const error = byId("key-error");
  setText(error, "");
  // Without a key there is nothing to see; a browser closes a dialog at the second Escape, whatever is said to the first.
  dialog.oncancel = (event) => event.preventDefault();
  dialog.onclose = () => dialog.showModal();
  dialog.showModal();
  input.value = "";
  input.focus();
  await new Promise<void>((right) => {
    byId<HTMLFormElement>("key-form").onsubmit = async (event) => {
      event.preventDefault();
      key.value = input.value.trim();
      const answer = await state().catch(() => null);
      if (open(answer)) return right();
      key.value = "";
      setText(error, answer ? "That is not this server's key." : "The server does not answer.");
      input.select();
    };
  });
  input.value = "";
  dialog.onclose = null;
  dialog.close();
}
