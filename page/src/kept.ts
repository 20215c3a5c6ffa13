// A value that a browser keeps. Where its storage is switched off or full, the value lasts as long as the page.

export interface Kept {
  value: string;
}

export function kept(storage: () => Storage, name: string): Kept {
  let value = "";
  try {
    value = storage().getItem(name) ?? "";
  } catch {
    // switched off
  }
  return {
    get value(): string {
      return value;
    },
    set value(text: string) {
      value = text;
      try {
        if (text) storage().setItem(name, text);
        else storage().removeItem(name);
      } catch {
        // switched off, or full
      }
    },
  };
}
