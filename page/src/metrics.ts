// Prometheus' text format, as far as `/metrics` uses it, and the figures that the strip shows.

export interface Sample {
  labels: Record<string, string>;
  value: number;
}

/** All samples by metric name. */
export function parse(text: string): Map<string, Sample[]> {
  const found = new Map<string, Sample[]>();
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels: Record<string, string> = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name!] = value!.replace(/\\(.)/g, (_, char: string) => (char === "n" ? "\n" : char));
    }
    const samples = found.get(match[1]!) ?? [];
    samples.push({ labels, value: Number(match[3]) });
    found.set(match[1]!, samples);
  }
  return found;
}

/** One moment of the server. What a server does not tell is undefined. */
export interface Figures {
  at: number; // milliseconds
  info: Record<string, string>;
  running: number | undefined;
  waiting: number | undefined;
  generated: number | undefined;
  pagesUsed: number | undefined;
  pages: number | undefined;
  drafted: number | undefined;
  accepted: number | undefined;
}

export function figures(text: string, at: number): Figures {
  const samples = parse(text);
  const sum = (name: string): number | undefined =>
    samples.get(name)?.reduce((total, sample) => total + sample.value, 0);
  return {
    at,
    info: samples.get("replit_model_info")?.[0]?.labels ?? {},
    running: sum("replit_running"),
    waiting: sum("replit_queue_depth"),
    generated: sum("replit_generated_tokens_total"),
    pagesUsed: sum("replit_cache_pages_used"),
    pages: sum("replit_cache_pages"),
    drafted: sum("replit_draft_tokens_total"),
    accepted: sum("replit_draft_tokens_accepted_total"),
  };
}

/** Tokens a second between two moments; undefined where that cannot be said. */
export function rate(before: Figures | null, now: Figures): number | undefined {
  if (!before || before.generated === undefined || now.generated === undefined) return undefined;
  const seconds = (now.at - before.at) / 1000;
  return seconds > 0 ? Math.max(now.generated - before.generated, 0) / seconds : undefined;
}
