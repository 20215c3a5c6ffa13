// The sliders and the choice of where a suggestion ends.

import type { Settings } from "./completion";
import { byId, setText } from "./dom";

const SLIDERS = ["temperature", "top_k", "max_tokens"] as const;

/** Calls `changed` at each change; returns what reads the settings. */
export function connectSettings(changed: () => void): () => Settings {
  const read = (name: (typeof SLIDERS)[number]): number => byId<HTMLInputElement>(name).valueAsNumber;
  const label = (): void => {
    setText(byId("temperature-value"), read("temperature") === 0 ? "0, greedy" : read("temperature").toFixed(2));
    setText(byId("top_k-value"), read("top_k") === 0 ? "all" : String(read("top_k")));
    setText(byId("max_tokens-value"), `${read("max_tokens")} tokens`);
  };
  const radios = document.querySelectorAll<HTMLInputElement>("input[name=completion]");
  for (const input of [...SLIDERS.map((name) => byId(name)), ...radios]) {
    input.addEventListener("input", () => {
      label();
      changed();
    });
  }
  label();
  return () => ({
    temperature: read("temperature"),
    top_k: read("top_k"),
    max_tokens: read("max_tokens"),
    completion: [...radios].find((radio) => radio.checked)!.value as Settings["completion"],
  });
}
