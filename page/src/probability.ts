// How probabilities look: a class for the tint, a percentage, a spelling for tokens that one cannot see.

const BOUNDS = [0.1, 0.25, 0.5, 0.75, 0.9];

/** The class of a tint, p0 (hardly probable) to p5 (all but certain); page.css has the colours. */
export function level(probability: number): string {
  return `p${BOUNDS.filter((bound) => probability >= bound).length}`;
}

export function percent(probability: number): string {
  const value = probability * 100;
  if (value >= 99.95) return "100 %";
  return value < 0.1 ? "< 0.1 %" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

/** A token with its spaces and line ends made visible. */
export function visible(text: string): string {
  return text.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍") || "∅";
}

/** A token as a screen reader can say it. */
export function spoken(text: string): string {
  const said = text.replace(/\n/g, " line end ").replace(/\t/g, " tab ").trim();
  return said || `${text.length} ${text.length === 1 ? "space" : "spaces"}`;
}
