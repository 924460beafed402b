/** Numbers and dates in the reader's language. Money goes to Intl as text, which keeps all of its decimals. */

import type { BucketWidth, Measures } from '@client';
import { units } from './money';
import type { Measure } from './view';

type Exact = Intl.StringNumericLiteral;

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: 'compact', maximumSignificantDigits: 3 });
const dollars = new Intl.NumberFormat(undefined, { style: 'currency', currency: 'USD' });
const exactDollars = new Intl.NumberFormat(undefined, {
  style: 'currency',
  currency: 'USD',
  minimumFractionDigits: 2,
  maximumFractionDigits: 10,
});
const shortDollars = new Intl.NumberFormat(undefined, {
  style: 'currency',
  currency: 'USD',
  notation: 'compact',
  minimumFractionDigits: 0,
  maximumFractionDigits: 1,
});
const tinyDollars = new Intl.NumberFormat(undefined, { style: 'currency', currency: 'USD', maximumSignificantDigits: 2 });
const percent = new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 2 });
const signed = new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 1, signDisplay: 'exceptZero' });

/** All digits. */
export const count = (value: number) => whole.format(value);
/** Three digits. */
export const brief = (value: number) => short.format(value);
/** All decimals. */
export const money = (text: string) => exactDollars.format(text as Exact);
/** To the cent. */
export const cents = (text: string) => dollars.format(text as Exact);
export const rate = (value: number | null) => (value === null ? '–' : percent.format(value));
/** Of tenths of a percent. */
export const changed = (tenths: number) => signed.format(tenths / 1000);
/** The digits after the cents, for less ink. */
export function parts(text: string): [string, string] {
  const all = money(text);
  const found = exactDollars.formatToParts(text as Exact).find(({ type }) => type === 'fraction')?.value ?? '';
  const rest = found.slice(2);
  return rest && all.endsWith(rest) ? [all.slice(0, -rest.length), rest] : [all, ''];
}

/** A measure, all of its digits. */
export const exact = (measures: Measures, measure: Measure) =>
  measure === 'cost' ? money(measures.cost) : count(measures[measure]);
/** A measure as a whole number: money in units of 1e-10. */
export const amount = (measures: Measures, measure: Measure) =>
  measure === 'cost' ? units(measures.cost) : BigInt(measures[measure]);
/** How high its bar is. The one place where money is a float: a pixel has no decimals. */
export const height = (measures: Measures, measure: Measure) =>
  measure === 'cost' ? Number(measures.cost) : measures[measure];
/** A place on a chart's axis. */
export function tick(value: number, measure: Measure): string {
  if (measure !== 'cost') return brief(value);
  return value !== 0 && Math.abs(value) < 1 ? tinyDollars.format(value) : shortDollars.format(value);
}

const formats = new Map<string, Intl.DateTimeFormat>();
function dates(zone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = zone + JSON.stringify(options);
  const format = formats.get(key) ?? new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options });
  formats.set(key, format);
  return format;
}

const DATE = { day: 'numeric', month: 'short' } as const;
const TIME = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const;
const FULL = { ...DATE, weekday: 'short', year: 'numeric' } as const;

/** A bucket below a chart. */
export function label(start: string, width: BucketWidth, zone: string): string {
  const at = new Date(start);
  if (width === '1mo') return dates(zone, { month: 'short', year: '2-digit' }).format(at);
  if (width === '1d' || width === '1w' || width === 'all') return dates(zone, DATE).format(at);
  const time = dates(zone, TIME).format(at);
  return time === '00:00' ? dates(zone, DATE).format(at) : time;
}
/** A bucket in full. */
export function bucket(start: string, end: string, width: BucketWidth, zone: string): string {
  const [from, to] = [new Date(start), new Date(end)];
  if (width === '1mo') return dates(zone, { month: 'long', year: 'numeric' }).format(from);
  if (width === '1d') return dates(zone, FULL).format(from);
  if (width === '1w' || width === 'all') return dates(zone, FULL).formatRange(from, new Date(to.getTime() - 1));
  return `${dates(zone, { ...FULL, ...TIME }).format(from)}–${dates(zone, TIME).format(to)}`;
}
/** A range of whole days or of hours. */
export function range(start: Date, end: Date, zone: string): string {
  const isDays = [start, end].every((at) => dates(zone, TIME).format(at) === '00:00');
  return isDays
    ? dates(zone, { ...DATE, year: 'numeric' }).formatRange(start, new Date(end.getTime() - 1))
    : dates(zone, { ...DATE, ...TIME, year: 'numeric' }).formatRange(start, end);
}
export const monthName = (written: string) =>
  dates('UTC', { month: 'long', year: 'numeric' }).format(new Date(`${written}-01T00:00:00Z`));
export const day = (at: Date, zone: string) => dates(zone, DATE).format(at);
export const time = (at: Date, zone: string) => dates(zone, { ...TIME, second: '2-digit' }).format(at);

const units_of_time: [Intl.RelativeTimeFormatUnit, number][] = [['day', 86_400], ['hour', 3_600], ['minute', 60], ['second', 1]];
/** `5 minutes`, of seconds. */
export function lasting(seconds: number): string {
  const [unit, size] = units_of_time.find(([, size]) => seconds >= size) ?? ['second', 1];
  const value = Math.max(0, Math.floor(seconds / size));
  return new Intl.NumberFormat(undefined, { style: 'unit', unit: unit as string, unitDisplay: 'long' }).format(value);
}
