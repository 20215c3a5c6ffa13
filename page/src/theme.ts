// Dark or light: the system's choice until the button says otherwise; kept for this address.

import { byId } from "./dom";
import { kept } from "./kept";

const NAMES = { system: "as the system has them", light: "light", dark: "dark" };
type Theme = keyof typeof NAMES;

export function connectTheme(): void {
  const button = byId<HTMLButtonElement>("theme");
  const stored = kept(() => localStorage, "replit-theme");
  let theme = (Object.hasOwn(NAMES, stored.value) ? stored.value : "system") as Theme;
  const show = (): void => {
    document.documentElement.dataset["theme"] = theme;
    button.setAttribute("aria-label", `Colours: ${NAMES[theme]}`);
    button.title = `Colours: ${NAMES[theme]}`;
  };
  button.addEventListener("click", () => {
    const order = Object.keys(NAMES) as Theme[];
    theme = order[(order.indexOf(theme) + 1) % order.length]!;
    stored.value = theme;
    show();
  });
  show();
}
