import { expect, test } from 'vitest';
import { mended } from './trouble';
import { parse, write } from './view';

const view = parse('?tz=Asia/Kolkata&range=2026-06', 'UTC');

test('all changes that a refusal asks for are made together', () => {
  const next = mended(view, [
    { parameter: 'start_time', detail: '', allowed: ['2026-06-01T00:00:00Z'] },
    { parameter: 'time_zone', detail: '', allowed: ['UTC'] },
  ]);
  expect(write(next!)).toBe('?from=2026-06-01T00%3A00%3A00Z&to=2026-06-30T18%3A30%3A00Z&tz=UTC');
  const period = mended(view, [
    { parameter: 'period', detail: '', allowed: ['start_time=2026-06-02T00:00:00Z', 'end_time=2026-06-03T00:00:00Z'] },
    { parameter: 'bucket_width', detail: '', allowed: ['1d'] },
  ]);
  expect(write(period!)).toBe('?from=2026-06-02T00%3A00%3A00Z&to=2026-06-03T00%3A00%3A00Z&tz=Asia%2FKolkata&width=1d');
});

test('what says no value offers nothing', () => {
  expect(mended(view, [{ parameter: 'start_time', detail: '', allowed: ['a later range'] }])).toBeNull();
  expect(mended(view, [{ parameter: 'compare', detail: '' }])).toBeNull();
});
