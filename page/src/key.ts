// Asks for the key of a server that wants one, until it is right. It is kept in this tab.

import { key, state, type State } from "./api";
import { byId, setText } from "./dom";

/** Returns once the key that requests carry is right, or none is needed. */
export async function askForKey(found: State): Promise<void> {
  if (found.key === "none" || found.key === "right") return;
  key.value = ""; // one kept from an earlier server of this address
  const dialog = byId<HTMLDialogElement>("key-dialog");
  const input = byId<HTMLInputElement>("key");
  const error = byId("key-error");
  setText(error, "");
  dialog.addEventListener("cancel", (event) => event.preventDefault()); // without a key there is nothing to see
  if (!dialog.open) dialog.showModal();
  input.value = "";
  input.focus();
  await new Promise<void>((right) => {
    byId<HTMLFormElement>("key-form").onsubmit = async (event) => {
      event.preventDefault();
      key.value = input.value.trim();
      if ((await state().catch(() => null))?.key === "right") return right();
      key.value = "";
      setText(error, "That is not this server's key.");
      input.select();
    };
  });
  input.value = "";
  dialog.close();
}
