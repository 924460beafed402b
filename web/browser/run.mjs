// node web/browser/run.mjs PART, with what the part needs to know as JSON in the first line of its input.

import { accessible } from './accessible.mjs';
import { told } from './browser.mjs';
import { figures } from './figures.mjs';
import { hostile } from './hostile.mjs';
import { roles } from './roles.mjs';
import { states } from './states.mjs';

const parts = { accessible, figures, hostile, roles, states };
await parts[process.argv[2]](await told());
// The reader of the input would keep the process.
process.exit(0);
