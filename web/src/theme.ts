/** Light or dark: as the system has it, or as the reader chose. */

import { useSyncExternalStore } from 'react';

export type Choice = 'system' | 'light' | 'dark';
const KEY = 'usage-analytics.theme';
const CHOICES: Choice[] = ['system', 'light', 'dark'];
const dark = () => matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set<() => void>();
let choice: Choice = 'system';

function apply() {
  const { dataset } = document.documentElement;
  if (choice === 'system') delete dataset.theme;
  else dataset.theme = choice;
  listeners.forEach((listener) => listener());
}

/** Before anything is drawn. */
export function beginTheme() {
  choice = CHOICES.find((one) => one === localStorage.getItem(KEY)) ?? 'system';
  apply();
  dark().addEventListener('change', apply);
}

/** The next choice. */
export function nextTheme() {
  choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length]!;
  localStorage.setItem(KEY, choice);
  apply();
}

const subscribe = (listener: () => void) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};
export const useChoice = () => useSyncExternalStore(subscribe, () => choice);
/** What is drawn now. */
export const useTheme = () =>
  useSyncExternalStore(subscribe, () => (choice === 'system' ? (dark().matches ? 'dark' : 'light') : choice));
