// Dark or light: the system's choice until the button says otherwise; kept for this address.

import { byId } from "./dom";

const STORED = "replit-theme";
const NAMES = { system: "as the system has them", light: "light", dark: "dark" };
type Theme = keyof typeof NAMES;

export function connectTheme(): void {
  const button = byId<HTMLButtonElement>("theme");
  let theme = (localStorage.getItem(STORED) ?? "system") as Theme;
  const show = (): void => {
    document.documentElement.dataset["theme"] = theme;
    button.setAttribute("aria-label", `Colours: ${NAMES[theme]}`);
    button.title = `Colours: ${NAMES[theme]}`;
  };
  button.addEventListener("click", () => {
    const order = Object.keys(NAMES) as Theme[];
    theme = order[(order.indexOf(theme) + 1) % order.length]!;
    localStorage.setItem(STORED, theme);
    show();
  });
  if (!(theme in NAMES)) theme = "system";
  show();
}
