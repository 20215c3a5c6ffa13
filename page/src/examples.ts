// The languages of the editor, each with code that is not finished: the cursor is between `before` and `after`.

import { cpp } from "@codemirror/lang-cpp";
import { go } from "@codemirror/lang-go";
import { java } from "@codemirror/lang-java";
import { javascript } from "@codemirror/lang-javascript";
import { python } from "@codemirror/lang-python";
import { rust } from "@codemirror/lang-rust";
import type { LanguageSupport } from "@codemirror/language";

export interface Example {
  name: string;
  support: () => LanguageSupport;
  indent: string;
  before: string;
  after: string;
}

export const EXAMPLES: Record<string, Example> = {
  python: {
    name: "Python",
    support: python,
    indent: "    ",
    before: `class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        return self.items.pop()

    def __len__(`,
    after: `


stack = Stack()
stack.push(1)
print(stack.pop())
`,
  },
  javascript: {
    name: "JavaScript",
    support: () => javascript(),
    indent: "  ",
    before: `// How often each word occurs.
function countWords(text) {
  const counts = new Map();
  for (const word of text.split(/\\s+/)) {
    counts.set(`,
    after: `);
  }
  return counts;
}

console.log(countWords("to be or not to be"));
`,
  },
  typescript: {
    name: "TypeScript",
    support: () => javascript({ typescript: true }),
    indent: "  ",
    before: `interface Point {
  x: number;
  y: number;
}

function add(a: Point, b: Point): Point {
  return {`,
    after: ` };
}

console.log(add({ x: 1, y: 2 }, { x: 3, y: 4 }));
`,
  },
  java: {
    name: "Java",
    support: java,
    indent: "    ",
    before: `public class Point {
    private final int x;
    private final int y;

    public Point(int x, int y) {
        this.x = x;`,
    after: `
    }

    public Point plus(Point other) {
        return new Point(x + other.x, y + other.y);
    }
}
`,
  },
  cpp: {
    name: "C, C++",
    support: cpp,
    indent: "    ",
    before: `#include <stdio.h>

int largest(const int *values, int count) {
    int found = values[0];
    for (int i = 1; i < count; i++) {
        if (values[i] > found)`,
    after: `
    }
    return found;
}
`,
  },
  go: {
    name: "Go",
    support: go,
    indent: "\t",
    before: `package main

import "fmt"

func sum(values []int) int {
	total := 0
	for _, value := range values {`,
    after: `
	}
	return total
}

func main() {
	fmt.Println(sum([]int{1, 2, 3}))
}
`,
  },
  rust: {
    name: "Rust",
    support: rust,
    indent: "    ",
    before: `struct Point {
    x: f64,
    y: f64,
}

impl Point {
    fn length(&self) -> f64 {
        (self.x * self.x`,
    after: `).sqrt()
    }
}
`,
  },
};
